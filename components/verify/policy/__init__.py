"""Network policies of Kubernetes and Calico: which of them select a pod, and what they decide for a packet."""
