"""Reading a live lab: the Kubernetes API, each node's data path, EC2."""
