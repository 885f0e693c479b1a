"""From prepared machines to a Kubernetes cluster whose nodes are Ready but for their CNI."""
