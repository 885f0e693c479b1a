# shellcheck shell=bash
# Upgrades this node's part of the cluster to KUBERNETES_VERSION with kubeadm. kubelet follows in upgrade-kubelet.sh, so
# if kubelet has that version, this script was done before. It may be interrupted anywhere: kubeadm upgrade can be
# repeated.
# PART: apply on the first control plane, node on every other node. Comes after packages.sh.
: "${PART:?}"

LOG=$CNI_LAB_LOGS/kubeadm-upgrade.log
WANTED=$KUBERNETES_VERSION
KUBECONFIG=$KUBELET_CONF
if [[ -e $ADMIN_CONF ]]; then KUBECONFIG=$ADMIN_CONF; fi
export KUBECONFIG

# The cluster's version, which kubeadm writes when the first control plane runs with it.
cluster_version() {
  kube --namespace kube-system get configmap kubeadm-config \
    --output 'go-template={{index .data "ClusterConfiguration"}}' | sed -n 's/^kubernetesVersion: v//p'
}

# The API server answers a request for its version also without etcd, and then nothing else.
api_answers() {
  if kube get --raw /readyz; then return 0; fi
  end_back_off
  return 1
}

# Fails for a node that an earlier upgrade did not reach, or that somebody upgraded further.
refuse_other_kubelets() {
  local nodes name version
  nodes=$(retry 3 kube get nodes --output \
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
wait_for "$API_TIMEOUT_SECONDS" \
  "the Kubernetes API (look at crictl ps -a, journalctl -u kubelet on the control plane)" api_answers
cluster=$(retry 3 cluster_version)
case $PART in
  apply)
    refuse_jump_from "$cluster" "the control plane is at"
    refuse_other_kubelets
    command=(upgrade apply "v$WANTED" --yes)
    ;;
  node)
    # kubelet may be older than the API server, never newer.
    [[ $cluster == "$WANTED" ]] ||
      fail "the cluster is at Kubernetes $cluster and $NODE_NAME would get kubelet $WANTED: the first control plane" \
        "must have that version before, because kubelet must not be newer than the API server. Repeat up"
    command=(upgrade node)
    ;;
  *) fail "PART=$PART: want apply or node" ;;
esac
repair_dpkg
[[ $(version_of kubeadm) == "$WANTED" ]] || install_kubeadm
mkdir -p -- "$PATCHES"
log "kubeadm ${command[*]} runs; its output is in $LOG on $NODE_NAME"
retry 2 kubeadm_run "$LOG" "${command[@]}" --patches "$PATCHES" ||
  fail "kubeadm ${command[*]} failed on $NODE_NAME: the last lines are above, all of them in $LOG there. What runs is" \
    "as kubeadm left it; fix what they name, and repeat"
