#!/bin/bash
# Tells its version; as a service it registers its Node with the version it runs at, and starts an API server that ended.
case $1 in
  --run)
    mkdir -p /var/lib/standin/nodes
    echo "$HOSTNAME v@VERSION@" >"/var/lib/standin/nodes/$HOSTNAME"
    echo "kubelet @VERSION@ starts" >>/var/lib/standin/calls
    rm -f /var/lib/standin/api-server-ended
    exec sleep infinity
    ;;
  *) echo "Kubernetes v@VERSION@" ;;
esac
