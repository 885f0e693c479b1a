#!/usr/bin/env bash
# network.sh create|update|delete: one subnet of the lab as a bridge network. create and update print its name.
# Environment: ENGINE STACK OWNER NETWORK; for create and update also SUBNET GATEWAY MTU, and LAB_SUBNETS CLUSTER_RANGES
# (CIDRs separated by spaces: all subnets of the lab; the ranges of pods and Services).
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=components/machines/local/lib.sh
source "$here/lib.sh"
: "${STACK:?}" "${OWNER:?}" "${ENGINE:?}" "${NETWORK:?}"

# ipv4_number ADDRESS: the address as a number.
ipv4_number() {
  local a b c d
  IFS=. read -r a b c d <<<"$1"
  printf '%d' $(((a << 24) + (b << 16) + (c << 8) + d))
}

# overlap CIDR CIDR: whether they have an address in common.
overlap() {
  local one=${1#*/} two=${2#*/} shift
  shift=$((32 - (one < two ? one : two)))
  (($(ipv4_number "${1%/*}") >> shift == $(ipv4_number "${2%/*}") >> shift))
}

ranges_of() {
  case $ENGINE in
    podman) "$ENGINE" network inspect --format '{{range .Subnets}}{{.Subnet}} {{end}}' "$1" ;;
    docker) "$ENGINE" network inspect --format '{{range .IPAM.Config}}{{.Subnet}} {{end}}' "$1" ;;
  esac
}

in_use() { fail "network.subnets: $SUBNET is in use on this computer by $1; choose another range"; }

# Fails if a network of the engine, an interface, or a route to a part of the range has it already.
check_free() {
  local found name range word
  found=$("$ENGINE" network ls --format '{{.Name}}')
  for name in $found; do
    range=$(ranges_of "$name")
    for word in $range; do
      [[ $word == *:* ]] || ! overlap "$SUBNET" "$word" || in_use "$ENGINE's network $name ($word)"
    done
  done
  found=$(ip -4 -oneline address show)
  while read -r _ name _ range _; do
    ! overlap "$SUBNET" "$range" || in_use "interface $name ($range)"
  done <<<"$found"
  found=$(ip -4 route show)
  while read -r range _; do
    [[ $range == [0-9]* ]] || continue
    [[ $range == */* ]] || range+=/32
    # A wider route, such as a VPN's 10.0.0.0/8, may stay: ours is more specific.
    ((${range#*/} < ${SUBNET#*/})) || ! overlap "$SUBNET" "$range" || in_use "the route to $range"
  done <<<"$found"
}

bridge_of() {
  case $ENGINE in
    podman) "$ENGINE" network inspect --format '{{.NetworkInterface}}' "$NETWORK" ;;
    docker) "$ENGINE" network inspect --format 'br-{{printf "%.12s" .Id}}' "$NETWORK" ;;
  esac
}

# This computer routes between the lab's subnets as a VPC's router does. Addresses are kept, because packets that are
# not tracked are not translated. Packets whose source is not in the subnet's range are dropped, and none leaves for a
# pod's or a Service's address. `fib … local` excepts connections of this computer to the machines, which stay tracked.
route() {
  local bridge other
  bridge=$(bridge_of)
  nft --file - <<RULES
add table inet $NETWORK
delete table inet $NETWORK
table inet $NETWORK {
  chain between_subnets {
    type filter hook prerouting priority raw; policy accept;
    iifname != "$bridge" accept
    fib daddr type local accept
    ip saddr $SUBNET ip daddr { ${LAB_SUBNETS// /, } } notrack
  }
  chain leaving {
    type filter hook forward priority filter - 10; policy accept;
    iifname != "$bridge" accept
    oifname "$bridge" accept
    ip saddr != $SUBNET drop
    ip daddr { ${CLUSTER_RANGES// /, } } reject
  }
}
RULES
  [[ $ENGINE == docker ]] || return 0
  # Docker isolates its networks from one another, and evaluates this chain first.
  forget_docker_rules
  for other in $LAB_SUBNETS; do
    iptables --wait 30 --insert DOCKER-USER --source "$SUBNET" --destination "$other" \
      --match comment --comment "$NETWORK" --jump ACCEPT
  done
}

forget_docker_rules() {
  local rule rules
  rules=$(iptables --wait 30 --list-rules)
  while read -r rule; do
    [[ $rule != "-A DOCKER-USER "*"--comment $NETWORK "* && $rule != "-A DOCKER-USER "*"--comment \"$NETWORK\" "* ]] ||
      xargs iptables --wait 30 <<<"-D ${rule#-A }"
  done <<<"$rules"
}

create() {
  local options=(--driver bridge --subnet "$SUBNET" --gateway "$GATEWAY"
    --label "cni-lab.stack=$STACK" --label "cni-lab.owner=$OWNER") said
  ! ours network "$NETWORK" || remove
  check_free
  case $ENGINE in
    podman) options+=(--disable-dns --opt "mtu=$MTU") ;;
    docker)
      options+=(--opt "com.docker.network.driver.mtu=$MTU")
      # From 28 on Docker drops what is routed to a container from another network, unless told so.
      (($("$ENGINE" version --format '{{.Server.Version}}' | cut -d. -f1) < 28)) ||
        options+=(--opt com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected)
      ;;
  esac
  said=$(engine network create "${options[@]}" "$NETWORK" 2>&1) ||
    fail "$ENGINE cannot make the network $NETWORK ($SUBNET): $(error_line "$said")"
  update
}

update() {
  ours network "$NETWORK" || fail "the network $NETWORK is gone from $ENGINE; run ./lab destroy $STACK, then up"
  route
  printf '%s\n' "$NETWORK"
}

# drop_bridge NAME RANGE: delete the bridge that a killed podman left of a removed network. A newer bridge of that name
# has another range and stays.
drop_bridge() {
  local link found range
  [[ -e /sys/class/net/$1 ]] || return 0
  found=$(ip -4 -oneline address show dev "$1")
  read -r _ _ _ range _ <<<"$found"
  [[ -n ${range:-} ]] && overlap "$range" "$2" || return 0
  for link in "/sys/class/net/$1/brif/"*; do
    [[ ! -e $link ]] || ip link delete "${link##*/}"
  done
  ip link delete "$1"
}

# Containers of this lab that are still on the network are what a killed run left. Those of others are not removed.
remove() {
  local name names said bridge range
  settle
  names=$(listed container "network=$NETWORK")
  for name in $names; do
    log "removing a leftover: container $name"
    remove_container "$name"
  done
  bridge=$(bridge_of) range=$(ranges_of "$NETWORK")
  said=$(engine network rm "$NETWORK" 2>&1) ||
    fail "the network $NETWORK cannot be removed: $(error_line "$said"); take away what is attached to it and run again"
  drop_bridge "$bridge" "${range%% *}"
}

delete() {
  ! ours network "$NETWORK" || remove
  [[ $ENGINE != docker ]] || forget_docker_rules
  nft --file - <<RULES
add table inet $NETWORK
delete table inet $NETWORK
RULES
}

lock "stacks/$STACK/network-$NETWORK" 360
case ${1:-} in
  create | update) : "${SUBNET:?}" "${GATEWAY:?}" "${MTU:?}" "${LAB_SUBNETS:?}" "${CLUSTER_RANGES:?}" && "$1" ;;
  delete) delete ;;
  *) fail "usage: network.sh create|update|delete" ;;
esac
