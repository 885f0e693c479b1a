#!/bin/bash
case $1 in
  --run)
    mkdir -p /var/lib/standin
    echo "@VERSION@" >/var/lib/standin/crio
    echo "crio @VERSION@ starts" >>/var/lib/standin/calls
    exec sleep infinity
    ;;
  *) echo "crio version @VERSION@" ;;
esac
