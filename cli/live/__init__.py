"""Commands on a lab that is up: verify, walk, addresses, ssh, kubeconfig, break and mend."""
