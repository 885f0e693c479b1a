#!/usr/bin/env bash
# network.sh create|update|delete|check: one subnet of the lab as a bridge network. create and update print its name.
# update also restores what a restart of the computer removed: the packet filter and the routes. check changes nothing:
# it fails if the subnet is in use on this computer.
# Environment: ENGINE STACK OWNER NETWORK; for all but delete also SUBNET GATEWAY MTU, and LAB_SUBNETS CLUSTER_RANGES
# (CIDRs separated by spaces: all subnets of the lab; the ranges of pods and Services).
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=components/machines/local/lib.sh
source "$here/lib.sh"
: "${STACK:?}" "${OWNER:?}" "${ENGINE:?}" "${NETWORK:?}"

# overlap CIDR CIDR: whether they have an address in common.
overlap() {
  local a b c d one e f g h two shift
  IFS=./ read -r a b c d one <<<"$1"
  IFS=./ read -r e f g h two <<<"$2"
  shift=$((32 - (one < two ? one : two)))
  ((((a << 24) + (b << 16) + (c << 8) + d) >> shift == ((e << 24) + (f << 16) + (g << 8) + h) >> shift))
}

# networks_of ENGINE [NAME…]: lines "NAME|STACK|RANGE RANGE…" of its networks, or of these. STACK is empty where no lab
# made the network. They are looked at one by one, because another script may remove one meanwhile.
networks_of() {
  local engine=$1 name names found fields='{{range .Subnets}}{{.Subnet}} {{end}}'
  shift
  [[ $engine == podman ]] || fields='{{range .IPAM.Config}}{{.Subnet}} {{end}}'
  names=${*:-$("$engine" network ls --format '{{.Name}}')} || return
  for name in $names; do
    if found=$("$engine" network inspect --format "{{.Name}}|{{index .Labels \"cni-lab.stack\"}}|$fields" "$name" 2>&1)
    then
      printf '%s\n' "$found"
    elif ENGINE=$engine exists network "$name"; then
      log "$found"
      return 1
    fi
  done
}

# in_use: lines "RANGE WHO" of all that this computer uses: networks of both engines, of other labs too, interfaces, and
# routes. A route wider than /8 counts as a default route: VPNs write that one as 0.0.0.0/1 and 128.0.0.0/1.
in_use() {
  local engine found name stack ranges range
  for engine in podman docker; do
    if [[ $engine != "$ENGINE" ]] && { ! command -v "$engine" >/dev/null || ! "$engine" ps >/dev/null 2>&1; }; then
      continue # it is not installed, or does not run
    fi
    found=$(networks_of "$engine") || fail "$engine does not list its networks; run again"
    while IFS='|' read -r name stack ranges; do
      [[ $name != "$NETWORK" ]] || continue
      name="$engine's network $name"
      if [[ -n $stack && $stack != "$STACK" ]]; then name="the lab $stack ($name)"; fi
      for range in $ranges; do
        [[ $range == *:* ]] || printf '%s %s\n' "$range" "$name"
      done
    done <<<"$found"
  done
  found=$(ip -4 -oneline address show)
  while read -r _ name _ range _; do
    [[ -z $range ]] || printf '%s the interface %s\n' "$range" "$name"
  done <<<"$found"
  found=$(routes)
  while read -r range name; do
    [[ -z $range ]] || printf '%s a route%s\n' "$range" "${name:+ through $name}"
  done <<<"$found"
}

# routes: lines "RANGE INTERFACE" of this computer's routes, without default routes and without guard routes.
routes() {
  local found range words
  found=$(ip -4 route show)
  while read -r range words; do
    [[ $range == [0-9]* ]] || continue
    [[ $range == */* ]] || range+=/32
    ((${range#*/} < 8)) || printf '%s %s\n' "$range" "$(sed -nE 's/.*\bdev (\S+).*/\1/p' <<<"$words")"
  done <<<"$found"
}

# find_overlap RANGE LINES: whether one of the lines "RANGE WHO" has an address of RANGE. REPLY is that line.
find_overlap() {
  local range
  while read -r REPLY; do
    range=${REPLY%% *}
    if [[ -n $range ]] && overlap "$1" "$range"; then return 0; fi
  done <<<"$2"
  return 1
}

# free_subnet LINES: where this subnet could be: all of the lab's subnets are moved to another private /16, in which
# nothing is in use. Prints nothing if there is none.
free_subnet() {
  local base cidr
  for base in 10.{0..255} 172.{16..31} 192.168; do
    for cidr in $LAB_SUBNETS; do
      ((${cidr#*/} >= 16)) || return 0
      if find_overlap "$base.${cidr#*.*.}" "$1"$'\n'"${CLUSTER_RANGES// /$'\n'}"; then continue 2; fi
    done
    printf '%s' "$base.${SUBNET#*.*.}"
    return
  done
}

check_free() {
  local used free range user
  used=$(in_use)
  find_overlap "$SUBNET" "$used" || return 0
  read -r range user <<<"$REPLY"
  [[ $range == "$SUBNET" ]] || user+=" ($range)"
  free=$(free_subnet "$used")
  fail "network.subnets: $SUBNET is in use on this computer by $user;" \
    "choose another range${free:+, e.g. $free}"
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
set_rules() {
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

# The metric of this network's guard routes. It is larger than that of any other route, so a bridge's own route comes
# first while the bridge exists. Each network has a metric of its own, because labs may have the same range of pods.
guard_metric() {
  local sum
  read -r sum _ < <(cksum <<<"$NETWORK")
  printf '%d' $((0x80000000 | sum))
}

# guard RANGE…: make this computer refuse packets to these ranges as long as no bridge takes them. Without these routes
# they would leave by the default route while the machines are stopped. Guard routes to other ranges are removed.
guard() {
  local range metric found said
  metric=$(guard_metric)
  for range in "$@"; do
    if ! said=$(ip -4 route replace unreachable "$range" metric "$metric" 2>&1); then
      log "no routes can be set here that keep packets to $* on this computer ($said): while the machines are stopped" \
        "they follow its other routes"
      break
    fi
  done
  found=$(ip -4 route show type unreachable)
  while read -r _ range said; do
    if [[ " $said " == *" metric $metric "* && " $* " != *" $range "* ]]; then
      ip -4 route delete unreachable "$range" metric "$metric"
    fi
  done <<<"$found"
}

# guarded_ranges: the subnet, and the ranges of pods and Services. Where this computer has a wider route to one of the
# latter, such as a VPN's 10.0.0.0/8, that one is left out: a guard route would cut the VPN, and the rules of `leaving`
# reject the machines' packets to it.
guarded_ranges() {
  local range other name found
  printf '%s\n' "$SUBNET"
  found=$(routes)
  for range in $CLUSTER_RANGES; do
    while read -r other name; do
      if [[ -n $other ]] && ((${other#*/} < ${range#*/})) && overlap "$range" "$other"; then
        log "$range is a part of $other, to which this computer has a route through $name: that route stays"
        continue 2
      fi
    done <<<"$found"
    printf '%s\n' "$range"
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
  local ranges
  ours network "$NETWORK" ||
    fail "the network $NETWORK is gone from $ENGINE; ./lab up $STACK --repair makes it and its machines again"
  set_rules
  ranges=$(guarded_ranges)
  # shellcheck disable=SC2086  # one range a word
  guard $ranges
  printf '%s\n' "$NETWORK"
}

# The lab's own network, which a killed run left, is not looked at: create makes it again.
check() { ours network "$NETWORK" || check_free; }

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
  bridge=$(bridge_of) range=$(networks_of "$ENGINE" "$NETWORK")
  range=${range##*|}
  said=$(engine network rm "$NETWORK" 2>&1) ||
    fail "the network $NETWORK cannot be removed: $(error_line "$said"); take away what is attached to it and run again"
  drop_bridge "$bridge" "${range%% *}"
}

delete() {
  ! ours network "$NETWORK" || remove
  guard
  [[ $ENGINE != docker ]] || forget_docker_rules
  nft --file - <<RULES
add table inet $NETWORK
delete table inet $NETWORK
RULES
}

# check only reads, so it needs no lock and leaves no folder for one.
[[ ${1:-} == check ]] || lock "stacks/$STACK/network-$NETWORK" 360
case ${1:-} in
  create | update | check)
    : "${SUBNET:?}" "${GATEWAY:?}" "${MTU:?}" "${LAB_SUBNETS:?}" "${CLUSTER_RANGES:?}"
    "$1"
    ;;
  delete) delete ;;
  *) fail "usage: network.sh create|update|delete|check" ;;
esac
