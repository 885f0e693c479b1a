#!/bin/bash
# Moves manifests as kubeadm upgrade does: the old one away, then the new one in its place, and only where they differ.
set -eu
case $* in
  version*)
    echo v@VERSION@
    exit
    ;;
  'upgrade apply v@VERSION@ --yes --patches /etc/kubernetes/cni-lab/patches'*) ;;
  'upgrade node --patches /etc/kubernetes/cni-lab/patches'*) ;;
  *)
    echo "unknown: $*" >&2
    exit 1
    ;;
esac
kubectl get --raw /readyz
echo "kubeadm ${*:1:2}" >>/var/lib/standin/calls
if [[ -e /etc/kubernetes/admin.conf ]]; then
  backup=/etc/kubernetes/tmp/kubeadm-backup-manifests-$(date +%F-%H-%M-%S-%N)
  mkdir -p "$backup"
  for part in etcd kube-apiserver kube-controller-manager kube-scheduler; do
    manifest=/etc/kubernetes/manifests/$part.yaml
    if ! grep -qs "v@VERSION@" "$manifest"; then
      mv "$manifest" "$backup/"
      sleep 0.2
      printf 'spec:\n  containers:\n  - image: registry.k8s.io/%s:v@VERSION@\n' "$part" >"$backup/.new"
      mv "$backup/.new" "$manifest"
      sleep 0.1
    fi
  done
fi
if [[ $2 == apply ]]; then echo @VERSION@ >/var/lib/standin/cluster; fi
