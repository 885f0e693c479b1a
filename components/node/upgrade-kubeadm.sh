# shellcheck shell=bash
# Brings this node's part of the cluster to KUBERNETES_VERSION by kubeadm. kubelet follows in upgrade-kubelet.sh: where
# it has that version, this was done before. May be cut anywhere: kubeadm upgrade may be repeated.
# PART: apply on the first control plane, node on every other node.
: "${PART:?}"

LOG=/var/log/cni-lab/kubeadm-upgrade.log
WANTED=$KUBERNETES_VERSION
KUBECONFIG=$KUBELET_CONF
if [[ -e /etc/kubernetes/admin.conf ]]; then KUBECONFIG=/etc/kubernetes/admin.conf; fi
export KUBECONFIG

kube() { kubectl --request-timeout 15s "$@"; }

# The version that the first control plane was brought to last: kubeadm writes it when the control plane runs.
cluster_version() {
  kube --namespace kube-system get configmap kubeadm-config \
    --output 'go-template={{index .data "ClusterConfiguration"}}' | sed -n 's/^kubernetesVersion: v//p'
}

# A node that an earlier upgrade did not reach, or that somebody else brought further.
refuse_other_kubelets() {
  local nodes name version
  nodes=$(kube get nodes --output \
    'jsonpath={range .items[*]}{.metadata.name} {.status.nodeInfo.kubeletVersion}{"\n"}{end}')
  while read -r name version; do
    refuse_jump_from "${version#v}" "$name runs kubelet"
  done <<<"$nodes"
}

if ! joined; then
  log "$NODE_NAME is not in the cluster yet: nothing to upgrade"
  exit 0
fi
if [[ $(version_of kubelet) == "$WANTED" ]]; then exit 0; fi
refuse_jump
restore_manifests
wait_for 180 "the Kubernetes API (look at crictl ps -a, journalctl -u kubelet on the control plane)" \
  kube get --raw /version
cluster=$(cluster_version)
case $PART in
  apply)
    refuse_jump_from "$cluster" "the control plane is at"
    refuse_other_kubelets
    command=(upgrade apply "v$WANTED" --yes)
    ;;
  node)
    # kubelet may be older than the API server, never newer.
    [[ $cluster == "$WANTED" ]] ||
      fail "the cluster is at Kubernetes $cluster and $NODE_NAME would get kubelet $WANTED: not before the first" \
        "control plane has that version, for kubelet must not be newer than the API server. Repeat up"
    command=(upgrade node)
    ;;
  *) fail "PART=$PART: want apply or node" ;;
esac
mend_dpkg
[[ $(version_of kubeadm) == "$WANTED" ]] || install_kubeadm
mkdir -p -- "$PATCHES"
log "kubeadm ${command[*]} runs; its output is in $LOG on $NODE_NAME"
retry 2 kubeadm_run "$LOG" "${command[@]}" --patches "$PATCHES" ||
  fail "kubeadm ${command[*]} failed on $NODE_NAME: the last lines are above, all of them in $LOG there. What runs is" \
    "as kubeadm left it; mend what they name and repeat"
