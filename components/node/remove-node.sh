# shellcheck shell=bash
# remove-node.sh [--no-drain] NAME: takes the node NAME out of the cluster. Installed on a control plane, with lib.sh
# before it. Every part is bounded, all together by 180 s. A node that is not there is success.
export KUBECONFIG=/etc/kubernetes/admin.conf

# Several nodes may go at once, and a step that calls this keeps its lock.
exec 9>&- </dev/null

DRAIN=yes
if [[ ${1:-} == --no-drain ]]; then
  DRAIN=no
  shift
fi
NAME=${1:?usage: remove-node.sh [--no-drain] NAME}
[[ $NAME != "$(hostname)" ]] || fail "$NAME is this machine: run this on another control plane"

kube() { kubectl --request-timeout 15s "$@"; }

# etcdctl inside the etcd container of this machine.
etcdctl() {
  local pki=/etc/kubernetes/pki/etcd container
  container=$(crictl --runtime-endpoint unix:///var/run/crio/crio.sock ps --quiet --state running --name '^etcd$')
  [[ -n $container ]] || fail "etcd does not run on this machine: see crictl ps -a"
  crictl --runtime-endpoint unix:///var/run/crio/crio.sock exec "${container%%$'\n'*}" etcdctl --command-timeout 15s \
    --endpoints https://127.0.0.1:2379 --cacert "$pki/ca.crt" --cert "$pki/server.crt" --key "$pki/server.key" "$@"
}

# A dead member counts against the quorum: it goes before a new one of that name or address comes.
remove_etcd_member() {
  local id name peers members addresses=$1
  # Two removals at once could lose the quorum.
  exec 8<>/run/lock/cni-lab-etcd
  flock -w 45 8 || fail "another removal is busy with etcd: repeat when it is done"
  members=$(etcdctl member list)
  while IFS=, read -r id _ name peers _; do
    if [[ ${name# } == "$NAME" || (-z ${name# } && -n $addresses && ${peers# } == "https://$addresses:2380") ]]; then
      etcdctl member remove "$id" >&2
    fi
  done <<<"$members"
  exec 8>&-
}

READY='{.status.conditions[?(@.type=="Ready")].status}'
ADDRESS='{.status.addresses[?(@.type=="InternalIP")].address}'
node=$(kube get node "$NAME" --ignore-not-found \
  --output "jsonpath={.metadata.name}|$READY|$ADDRESS|{.metadata.labels}")
IFS='|' read -r found ready address labels <<<"$node"
if [[ $DRAIN == yes && -n $found && $ready == True ]]; then
  # What a budget or a slow pod holds back is no reason to keep the machine.
  kube drain "$NAME" --ignore-daemonsets --delete-emptydir-data --force --timeout=60s >&2 ||
    log "not every pod left $NAME within 60 s; the others end with it"
elif [[ $DRAIN == yes && -n $found ]]; then
  kube cordon "$NAME" >&2
  log "$NAME is not ready: its pods are not waited for"
fi
if [[ $labels == *'"node-role.kubernetes.io/control-plane"'* ]] || [[ -z $found && -d /var/lib/etcd/member ]]; then
  remove_etcd_member "${address%% *}"
fi
if [[ -n $found ]]; then kube delete node "$NAME" --ignore-not-found --timeout=30s >&2; fi
log "$NAME is not in the cluster any more"
