# shellcheck shell=bash
# Clears the delegates' ranges on this node before a delegate hands out addresses. A pod may have such an address since
# before the reservation existed, or since the range belonged to another delegate. host-local knows only its own leases,
# and would hand out the same address again.
# NODE_NAME: this node. RANGES: lines "DELEGATE FIRST LAST". TIMEOUT_SECONDS: how long it may take until the pods are
# gone.
: "${NODE_NAME:?}" "${RANGES:?}" "${TIMEOUT_SECONDS:?}"
# The node's own credentials let it see and delete the pods that run on it, and no others.
export KUBECONFIG=${CNI_LAB_KUBECONFIG:-$KUBELET_CONF}
LEASES=${CNI_LAB_LEASES:-/var/lib/cni/networks}

# intruders: a line "NAMESPACE,POD,ADDRESS,DELEGATE,OWNER,WORKLOAD" for each pod in a range that has no lease of its
# delegate.
intruders() {
  local pods namespace pod address hostnetwork phase owner workload delegate first last number
  local template='{range .items[*]}{.metadata.namespace},{.metadata.name},{.status.podIP},{.spec.hostNetwork}'
  template+=',{.status.phase},{.metadata.ownerReferences[0].kind},{.metadata.labels.cni-lab/workload}{"\n"}{end}'
  pods=$(kubectl get pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME" \
    --output "jsonpath=$template") || return
  while IFS=, read -r namespace pod address hostnetwork phase owner workload; do
    [[ $address == *.* && $hostnetwork != true && $phase != Succeeded && $phase != Failed ]] || continue
    while read -r delegate first last; do
      number=$(ipv4_number "$address")
      if (($(ipv4_number "$first") <= number && number <= $(ipv4_number "$last"))) &&
        [[ ! -e $LEASES/$delegate/$address ]]; then
        echo "$namespace,$pod,$address,$delegate,$owner,$workload"
      fi
    done <<<"${RANGES%$'\n'}"
  done <<<"$pods"
}

none_left() {
  local found
  found=$(intruders) || return
  [[ -z $found ]] || { echo "$found" && return 1; }
}

found=$(intruders)
foreign=()
while IFS=, read -r namespace pod address delegate owner workload; do
  [[ -n $pod ]] || continue
  log "pod $namespace/$pod has $address, an address of the delegate $delegate"
  case $namespace in
    kube-system | calico-system | calico-apiserver | tigera-operator) system=yes ;;
    *) system=${workload:+yes} ;;
  esac
  case $owner in
    ReplicaSet | StatefulSet | DaemonSet) [[ $system == yes ]] || foreign+=("$namespace/$pod") ;;
    *) foreign+=("$namespace/$pod") ;;
  esac
done <<<"$found"
((${#foreign[@]} == 0)) ||
  fail "pods that the lab must not restart have addresses of a delegate's range: ${foreign[*]}. Delete them" \
    "(kubectl -n NAMESPACE delete pod NAME) or move the range in the stack file, then repeat"

while IFS=, read -r namespace pod _; do
  [[ -n $pod ]] || continue
  log "restarting $namespace/$pod"
  kubectl --namespace "$namespace" delete pod "$pod" --ignore-not-found --wait=false >&2
done <<<"$found"
[[ -z $found ]] ||
  (wait_for "$TIMEOUT_SECONDS" "every pod out of the delegates' ranges" none_left) ||
  fail "a pod keeps an address of a delegate's range, see above. Look: kubectl get pods -A -o wide --field-selector" \
    "spec.nodeName=$NODE_NAME"
