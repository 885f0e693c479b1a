"""A lab without machines: its data path in network namespaces of this computer, to learn on and to test with.

Real are the kernel, its routes, ARP, tunnels, NAT and packets; files lie where Multus and Calico put them. There is no
Kubernetes and no container: a stand-in answers for the API, BIRD and CRI-O's log, and nothing repairs what breaks.

It is an independent account of what kubelet, Felix, BIRD and Multus leave on a node, so that verify has something to
disagree with: nothing here imports the expectations.
"""
