"""Makes the machines a Kubernetes cluster. Its nodes become Ready when the CNI is installed."""
