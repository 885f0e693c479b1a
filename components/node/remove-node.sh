# shellcheck shell=bash
# remove-node.sh [--no-drain] NAME: removes the node NAME from the cluster. Installed on a control plane, with lib.sh
# before it. Every part has a time limit; together they take at most 180 s. Succeeds when there is no such node.
export KUBECONFIG=$ADMIN_CONF

# Release lib.sh's lock, as several nodes may be removed at once. A step that calls this script keeps its own.
exec 9>&- </dev/null

DRAIN=yes
if [[ ${1:-} == --no-drain ]]; then
  DRAIN=no
  shift
fi
NAME=${1:?usage: remove-node.sh [--no-drain] NAME}
[[ $NAME != "$(hostname)" ]] || fail "$NAME is this machine: run this on another control plane"

# etcdctl WORD…: runs in the etcd container of this machine.
etcdctl() {
  local pki=/etc/kubernetes/pki/etcd container
  container=$(cri ps --quiet --state running --name '^etcd$')
  [[ -n $container ]] || fail "etcd does not run on this machine: see crictl ps -a"
  cri exec "${container%%$'\n'*}" etcdctl --command-timeout 15s \
    --endpoints https://127.0.0.1:2379 --cacert "$pki/ca.crt" --cert "$pki/server.crt" --key "$pki/server.key" "$@"
}

# remove_etcd_member ADDRESS: a dead member counts in the quorum, so it is removed before a new one of its name or
# address comes.
remove_etcd_member() {
  local id name peers members address=$1
  # Two removals at once could lose the quorum.
  exec 8<>/run/lock/cni-lab-etcd
  flock -w 45 8 || fail "another removal is changing etcd: repeat when it is done"
  members=$(etcdctl member list)
  while IFS=, read -r id _ name peers _; do
    if [[ ${name# } == "$NAME" || (-z ${name# } && -n $address && ${peers# } == "https://$address:2380") ]]; then
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
  # The machine is removed anyway, so pods that a disruption budget or a slow shutdown holds back do not stop this.
  kube drain "$NAME" --ignore-daemonsets --delete-emptydir-data --force --timeout=60s >&2 ||
    log "not every pod left $NAME within 60 s; the rest ends with the machine"
elif [[ $DRAIN == yes && -n $found ]]; then
  kube cordon "$NAME" >&2
  log "$NAME is not ready: it is removed without waiting for its pods"
fi
if [[ $labels == *'"node-role.kubernetes.io/control-plane"'* ]] || [[ -z $found && -d /var/lib/etcd/member ]]; then
  remove_etcd_member "${address%% *}"
fi
if [[ -n $found ]]; then kube delete node "$NAME" --ignore-not-found --timeout=30s >&2; fi
log "$NAME is not in the cluster any more"
