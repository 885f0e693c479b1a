# shellcheck shell=bash
# Runs on a control plane. Drains the node DRAINED before its kubelet and CRI-O change; pods of DaemonSets stay. Leaves
# a node alone that has the wanted versions. Afterwards upgrade-kubelet.sh uncordons the node.
: "${DRAINED:?}" "${KUBERNETES_VERSION:?}" "${CRIO_VERSION:?}"

export KUBECONFIG=${CNI_LAB_KUBECONFIG:-$ADMIN_CONF}
LOG=$CNI_LAB_LOGS/drain-$DRAINED.log
TIMEOUT_SECONDS=$((180 * SLOWDOWN))

node=$(kube get node "$DRAINED" --ignore-not-found --output \
  'jsonpath={.status.nodeInfo.kubeletVersion}|{.status.nodeInfo.containerRuntimeVersion}|{.spec.unschedulable}')
IFS='|' read -r kubelet crio unschedulable <<<"$node"
if [[ -z $node ]]; then
  log "$DRAINED is not in the cluster: nothing to drain"
elif [[ $kubelet != "v$KUBERNETES_VERSION" || ${crio#cri-o://}. != "$CRIO_VERSION".* ]]; then
  # The annotation says that we cordoned the node. A node that somebody else cordoned stays cordoned.
  [[ $unschedulable == true ]] || kube annotate --overwrite node "$DRAINED" cni-lab/cordoned=yes >&2
  log "$DRAINED has kubelet $kubelet and ${crio:-no runtime}: its pods move to other nodes"
  # --force also deletes pods that no controller makes again. Their names are shown below.
  logged "$LOG" kube drain "$DRAINED" --ignore-daemonsets --delete-emptydir-data --force \
    --timeout "${TIMEOUT_SECONDS}s" ||
    fail "not every pod left $DRAINED within $TIMEOUT_SECONDS s: see above, and kubectl get poddisruptionbudgets -A." \
      "It stays cordoned; make room for them or delete what blocks them, and repeat"
  sed -n 's/^Warning:.*\(deleting Pods that[^;]*\).*/cni-lab: \1/p' "$LOG" >&2
fi
