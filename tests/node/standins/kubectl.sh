#!/bin/bash
# A cluster that is files: Nodes with their kubelets' versions, one annotation, and an API that answers as long as its
# manifest is there and its container has not ended.
set -eu
if [[ $* == "version --client" ]]; then
  echo "Client Version: v@VERSION@"
  exit
fi
cd /var/lib/standin
api() {
  [[ ! -e /etc/kubernetes/admin.conf || -e /etc/kubernetes/manifests/kube-apiserver.yaml && ! -e api-server-ended ]] || {
    echo "The connection to the server was refused" >&2
    exit 1
  }
}
api
words=()
while (($#)); do
  case $1 in
    --kubeconfig | --request-timeout | --namespace | --server) shift ;;
    *) words+=("$1") ;;
  esac
  shift
done
# Without etcd, an API server answers for its version only.
if [[ -e etcd-away && ${words[*]} != 'get --raw /version' ]]; then
  echo "context deadline exceeded" >&2
  exit 1
fi
node=${words[2]:-}
case ${words[*]} in
  'get --raw '*) echo '{"gitVersion": "ok"}' ;;
  'get configmap kubeadm-config'*) echo "kubernetesVersion: v$(<cluster)" ;;
  'get nodes --output name') for file in nodes/*; do echo "node/${file##*/}"; done ;;
  'get nodes '*) cat nodes/* ;;
  'get node '*'{.spec.unschedulable}'*)
    [[ ! -e nodes/$node ]] ||
      echo "$(cut -d ' ' -f 2 "nodes/$node")|cri-o://$(<crio)|$([[ ! -e cordoned-$node ]] || echo true)"
    ;;
  'get node '*'{.metadata.annotations'*) cat "annotation-$node" 2>&1 || true ;;
  'get node '*) echo "$(cut -d ' ' -f 2 "nodes/$node") True" ;;
  'annotate --overwrite node '*)
    echo yes >"annotation-${words[3]}"
    ;;
  'annotate node '*) rm -f "annotation-$node" ;;
  'drain '*)
    echo "drain ${words[1]}" >>calls
    echo >"cordoned-${words[1]}"
    echo "Warning: ignoring DaemonSet-managed Pods: a/b; deleting Pods that declare no controller: default/shell" >&2
    sleep 0.3
    if [[ -e undrainable ]]; then
      echo "Cannot evict pod as it would violate the pod's disruption budget." >&2
      exit 1
    fi
    ;;
  'uncordon '*)
    echo "uncordon ${words[1]}" >>calls
    rm -f "cordoned-${words[1]}"
    ;;
  *)
    echo "no answer to ${words[*]}" >&2
    exit 1
    ;;
esac
