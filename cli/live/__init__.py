"""Commands on a running lab or sandbox: verify, walk, addresses, ssh, kubeconfig, break, mend and exercise.

Here are their pages and options. How a lab is read and checked is in components/verify.
"""
