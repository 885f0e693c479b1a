# shellcheck shell=bash
# Waits until Calico serves every node, then prints the blocks that the nodes have claimed: {"node": ["CIDR", …]}. The
# oldest block comes first, so that a node's first block stays first when it claims more.
# INSTALL: operator or manifest. IPAM: Calico or HostLocal. NODES: every node of the lab. POOLS: "NAME=CIDR" of each
# pool in which every node must hold a block. In a pool with a tunnel, the tunnel's address claims a block soon after
# Calico runs. For a node that has no block then, a short-lived pod claims one.
# TIMEOUT_SECONDS: how long it may take until every node is served, images pulled included.
: "${INSTALL:?}" "${IPAM:?}" "${NODES:?}" "${TIMEOUT_SECONDS:?}"
export KUBECONFIG=${CNI_LAB_KUBECONFIG:-$ADMIN_CONF}
# The pause image of the claiming pod is the one in CRI-O's configuration, which every node has. As a variable of this
# step it would run the step, and read the blocks, again at every new version of Kubernetes.
: "${PAUSE_IMAGE:=$(sed -n 's/^pause_image = "\(.*\)"$/\1/p' /etc/crio/crio.conf.d/20-cni-lab.conf)}"
read -ra nodes <<<"$NODES"
read -ra pools <<<"${POOLS:-}"
CLAIM=cni-lab/claim
# A jsonpath template that prints one line for each object.
AFFINITY='{range .items[*]}{.metadata.creationTimestamp}{" "}{.spec.node}{" "}{.spec.cidr}{" "}{.spec.state}'
AFFINITY+='{" "}{.spec.deleted}{" "}{.spec.type}{"\n"}{end}'
deadline=$(($(uptime_seconds) + TIMEOUT_SECONDS * SLOWDOWN))
# The rest of it, for wait_for, which multiplies it again.
left() { echo $(((deadline - $(uptime_seconds)) / SLOWDOWN)); }

# condition TYPE OBJECT: whether that condition of the object is True. Prints the conditions that are, with messages.
condition() {
  local status true
  status=$(kube get "$2" --output "jsonpath={.status.conditions[?(@.type==\"$1\")].status}") || return
  [[ $status != True ]] || return 0
  true='{range .status.conditions[?(@.status=="True")]}{.type}{": "}{.message}{"\n"}{end}'
  echo "$2 is not $1" && kube get "$2" --output "jsonpath=$true" && return 1
}

# Whether the operator has seen the current Installation. The condition Available may still describe the one before.
installation_seen() {
  local wanted seen
  wanted=$(kubectl get installation default --output 'jsonpath={.metadata.generation}')
  seen=$(kubectl get tigerastatus calico \
    --output 'jsonpath={.status.conditions[?(@.type=="Available")].observedGeneration}')
  [[ -n $wanted && $seen == "$wanted" ]] || {
    echo "TigeraStatus calico describes Installation generation ${seen:-none}, wanted $wanted" && return 1
  }
}

# stuck NAMESPACE: after a wait that failed, and said why.
stuck() {
  fail "Calico does not serve every node, see above." \
    "Look: kubectl -n $1 describe pods; kubectl get tigerastatus -o yaml"
}

rolled_out() { kubectl --namespace kube-system rollout status --timeout=5s "$1"; }

# These definitions exist since the step before, so if one is missing, waiting does not help.
definitions=({ippools,blockaffinities}.crd.projectcalico.org)
[[ $INSTALL != operator ]] || definitions+=({installations,tigerastatuses}.operator.tigera.io)
wait_for 60 "the Kubernetes API" kubectl get --raw /readyz
for definition in "${definitions[@]}"; do
  # On a busy computer a single request may fail although the API has just answered.
  found=$(retry 5 kubectl get customresourcedefinition "$definition" --ignore-not-found --output name)
  [[ -n $found ]] ||
    fail "this cluster does not run Calico: its API has no $definition. Something removed Calico, or another network" \
      "was installed instead; look: kubectl get pods -A. Destroy the lab and bring it up again"
done

case $INSTALL in
  operator)
    (
      await() { wait_for "$(left)" "$1" with_reasons "reasons tigera-operator calico-system" "${@:2}"; }
      await "the operator to take up the Installation" installation_seen
      for part in calico ippools apiserver; do
        await "TigeraStatus $part to be Available" condition Available "tigerastatus/$part"
      done
    ) || stuck calico-system
    ;;
  manifest)
    (
      for part in daemonset/calico-node deployment/calico-kube-controllers; do
        wait_for "$(left)" "$part to be rolled out" with_reasons "reasons kube-system" rolled_out "$part"
      done
    ) || stuck kube-system
    ;;
  *) fail "INSTALL=$INSTALL: want operator or manifest" ;;
esac
for node in "${nodes[@]}"; do
  (wait_for "$(left)" "node $node to be Ready" with_reasons "reasons kube-system" condition Ready "node/$node") ||
    stuck kube-system
done

# inside CIDR POOL: whether CIDR is a part of POOL.
inside() {
  local mask=$(((0xffffffff << (32 - ${2#*/})) & 0xffffffff))
  ((${1#*/} >= ${2#*/} && ($(ipv4_number "${1%/*}") & mask) == $(ipv4_number "${2%/*}")))
}

# blocks: lines "NODE CIDR", IPv4 only, oldest first. A block belongs to a node when its affinity is confirmed.
blocks() {
  if [[ $IPAM == HostLocal ]]; then
    kubectl get nodes --output 'jsonpath={range .items[*]}{.metadata.name}{" "}{.spec.podCIDR}{"\n"}{end}'
  else
    kubectl get blockaffinities.crd.projectcalico.org --output "jsonpath=$AFFINITY" |
      sort --key=1,1 --key=3,3V |
      while read -r _ node cidr state deleted type; do
        if [[ $state == confirmed && $deleted != true && ${type:-host} == host ]]; then echo "$node $cidr"; fi
      done
  fi | { grep -v : || true; }
}

# missing: a line "NODE POOL CIDR" for each node that must hold a block of a pool and does not.
missing() {
  local held node pool mine
  held=$(blocks) || return
  for node in "${nodes[@]}"; do
    for pool in "${pools[@]}"; do
      mine=no
      while read -r owner cidr; do
        if [[ $owner == "$node" ]] && inside "$cidr" "${pool#*=}"; then mine=yes; fi
      done <<<"$held"
      [[ $mine == yes ]] || echo "$node ${pool%%=*} ${pool#*=}"
    done
  done
}

none_missing() {
  local lines
  lines=$(missing) || return
  [[ -z $lines ]] || { echo "$lines" && return 1; }
}

# tunnelled: whether one of the pools uses a tunnel. This is read from the pools (ipipMode, vxlanMode), for the same
# reason as the pause image: a change of mode leaves the blocks as they are.
tunnelled() {
  local pool spec
  for pool in "${pools[@]}"; do
    spec=$(kubectl get "ippools.crd.projectcalico.org/${pool%%=*}" --output 'jsonpath={.spec}')
    if [[ $spec =~ Mode\":\ *\"(Always|CrossSubnet)\" ]]; then return 0; fi
  done
  return 1
}

remove_claims() {
  kubectl --namespace kube-system delete pods --selector "$CLAIM" --ignore-not-found --timeout=60s >&2
}

# claim NODE POOL: start a pod on that node with an address of that pool. For that address the node claims a block.
claim() {
  kubectl --namespace kube-system create --filename - >&2 <<EOF
apiVersion: v1
kind: Pod
metadata:
  generateName: cni-lab-claim-
  labels: {$CLAIM: "$1"}
  annotations: {cni.projectcalico.org/ipv4pools: '["$2"]'}
spec:
  nodeName: $1
  restartPolicy: Never
  activeDeadlineSeconds: 300
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  enableServiceLinks: false
  tolerations: [{operator: Exists}]
  containers: [{name: pause, image: "$PAUSE_IMAGE"}]
EOF
}

if [[ $IPAM == Calico ]]; then
  deadline=$(uptime_seconds)
  if tunnelled; then deadline=$((deadline + 60)); fi
  until none_missing >/dev/null || (($(uptime_seconds) >= deadline)); do sleep 2; done
  without=$(missing)
  if [[ -n $without ]]; then
    # An interrupted run may have left some.
    remove_claims
    trap remove_claims EXIT
    while read -r node pool cidr; do
      log "node $node has no block of pool $pool ($cidr) yet: a short-lived pod claims one"
      claim "$node" "$pool"
    done <<<"$without"
    (wait_for 180 "every node to claim a block (node, pool and CIDR follow)" \
      with_reasons "reasons kube-system" none_missing) || {
      kubectl --namespace kube-system describe pods --selector "$CLAIM" 2>&1 | tail -n 40 >&2 || true
      fail "a node got no block. Is its pool full, or does the pool's nodeSelector leave the node out?" \
        "Look: kubectl get ippools.crd.projectcalico.org,blockaffinities.crd.projectcalico.org"
    }
    trap - EXIT
    remove_claims
  fi
fi

held=$(blocks)
separator='{'
for node in "${nodes[@]}"; do
  printf '%s\n  "%s": [' "$separator" "$node"
  comma=
  while read -r owner cidr; do
    if [[ $owner == "$node" && -n $cidr ]]; then printf '%s"%s"' "$comma" "$cidr" && comma=', '; fi
  done <<<"$held"
  printf ']'
  separator=,
done
printf '\n}\n'
