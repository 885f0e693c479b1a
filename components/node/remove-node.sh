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
  # A dead member counts against the quorum. Two removals at once could lose it.
  exec 8>/run/lock/cni-lab-etcd
  flock -w 45 8 || fail "another removal is busy with etcd: repeat when it is done"
  remove_etcd_member 127.0.0.1 "$NAME" "${address%% *}" || fail "etcd does not let go of $NAME: see crictl ps -a, repeat"
  exec 8>&-
fi
if [[ -n $found ]]; then kube delete node "$NAME" --ignore-not-found --timeout=30s >&2; fi
log "$NAME is not in the cluster any more"
