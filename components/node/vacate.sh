# shellcheck shell=bash
# Free the delegates' ranges on this node before anything gives addresses from them: a pod may sit there since before
# the reservation stood, or since a range was another's. host-local knows only its own leases and would give such an
# address a second time.
# NODE_NAME: this node. RANGES: lines "DELEGATE FIRST LAST". PATIENCE: seconds in which a pod must be gone.
: "${NODE_NAME:?}" "${RANGES:?}" "${PATIENCE:?}"
# The node's own credentials: they let it see and delete the pods that run on it, and no others.
export KUBECONFIG=${CNI_LAB_KUBECONFIG:-/etc/kubernetes/kubelet.conf}
LEASES=${CNI_LAB_LEASES:-/var/lib/cni/networks}

# number ADDRESS: an IPv4 address as a number.
number() {
  local IFS=. a b c d
  read -r a b c d <<<"$1"
  echo $(((a << 24) | (b << 16) | (c << 8) | d))
}

# intruders: lines "NAMESPACE,POD,ADDRESS,DELEGATE,OWNER,WORKLOAD" of pods in a range without a lease of its delegate.
intruders() {
  local pods namespace pod address hostnetwork phase owner workload delegate first last
  local template='{range .items[*]}{.metadata.namespace},{.metadata.name},{.status.podIP},{.spec.hostNetwork}'
  template+=',{.status.phase},{.metadata.ownerReferences[0].kind},{.metadata.labels.cni-lab/workload}{"\n"}{end}'
  pods=$(kubectl get pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME" \
    --output "jsonpath=$template") || return
  while IFS=, read -r namespace pod address hostnetwork phase owner workload; do
    [[ $address == *.* && $hostnetwork != true && $phase != Succeeded && $phase != Failed ]] || continue
    while read -r delegate first last; do
      if (($(number "$first") <= $(number "$address") && $(number "$address") <= $(number "$last"))) &&
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
  fail "pods that are not the lab's to restart sit in a delegate's range: ${foreign[*]}. Delete them (kubectl -n" \
    "NAMESPACE delete pod NAME) or move the range in the stack file, then repeat"

while IFS=, read -r namespace pod _; do
  [[ -n $pod ]] || continue
  log "restarting $namespace/$pod"
  kubectl --namespace "$namespace" delete pod "$pod" --ignore-not-found --wait=false >&2
done <<<"$found"
[[ -z $found ]] ||
  (wait_for "$PATIENCE" "every pod out of the delegates' ranges" none_left) ||
  fail "a pod stays in a delegate's range, see above. Look: kubectl get pods -A -o wide --field-selector" \
    "spec.nodeName=$NODE_NAME"
