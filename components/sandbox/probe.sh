#!/usr/bin/env bash
# In fresh namespaces: try what a sandbox does. KIND…: each kind of link that the kernel does not make is printed.
set -euo pipefail
mount -t tmpfs tmpfs /tmp
mkdir /tmp/sys
mount -t sysfs sysfs /tmp/sys
ip link add probe0 type veth
for kind in "$@"; do
  words=(name probe1 type "$kind")
  case $kind in
    macvlan | ipvlan) words=(link probe0 "${words[@]}") ;;
    vxlan) words+=(id 1 dstport 4789) ;;
  esac
  if ip link add "${words[@]}" 2>/tmp/error; then
    ip link delete probe1
  else
    echo "$kind"
  fi
done
