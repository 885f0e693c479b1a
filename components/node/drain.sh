# shellcheck shell=bash
# On a control plane: takes the pods off the node DRAINED before its kubelet and CRI-O change; those of DaemonSets stay.
# A node that has the wanted versions is left alone. upgrade-kubelet.sh lets pods come back.
: "${DRAINED:?}" "${KUBERNETES_VERSION:?}" "${CRIO_VERSION:?}"

export KUBECONFIG=${CNI_LAB_KUBECONFIG:-/etc/kubernetes/admin.conf}
LOG=${CNI_LAB_LOGS:-/var/log/cni-lab}/drain-$DRAINED.log
PATIENCE=180

kube() { kubectl --request-timeout 15s "$@"; }

node=$(kube get node "$DRAINED" --ignore-not-found --output \
  'jsonpath={.status.nodeInfo.kubeletVersion}|{.status.nodeInfo.containerRuntimeVersion}|{.spec.unschedulable}')
IFS='|' read -r kubelet crio unschedulable <<<"$node"
if [[ -z $node ]]; then
  log "$DRAINED is not in the cluster: nothing to drain"
elif [[ $kubelet != "v$KUBERNETES_VERSION" || ${crio#cri-o://}. != "$CRIO_VERSION".* ]]; then
  # Who cordoned it, so that a node which somebody else keeps free stays so.
  [[ $unschedulable == true ]] || kube annotate --overwrite node "$DRAINED" cni-lab/cordoned=yes >&2
  log "$DRAINED has kubelet $kubelet and ${crio:-no runtime}: its pods go to other nodes"
  # --force: a pod that nobody makes again goes for good; it is named.
  logged "$LOG" kube drain "$DRAINED" --ignore-daemonsets --delete-emptydir-data --force --timeout "${PATIENCE}s" ||
    fail "not every pod left $DRAINED within $PATIENCE s: see above, and kubectl get poddisruptionbudgets -A. It" \
      "stays cordoned; make room for them or delete what holds them, and repeat"
  sed -n 's/^Warning:.*\(deleting Pods that[^;]*\).*/cni-lab: \1/p' "$LOG" >&2
fi
