# shellcheck shell=bash
# Read a node's data path and print it in sections: RS NAME newline, what the command printed, US STATUS newline.
# NAME is a topic (components/verify/model.py), "pod NAMESPACE TOPIC", or "probe INTERFACE ADDRESS [PORT]".
# Changes nothing. What bash can do is not left to a program: a node has many pods, and may be slow.
# Comes after netns.sh.
#
# PROBES: lines "INTERFACE ADDRESS [PORT]": the pod behind this host-side interface, or the node itself where that is
# "-", pings this address, or opens a TCP connection to this port.
# FIREWALLS: host-side interfaces, separated by spaces, of the pods that forward for others.
# BGP: yes where BIRD's sessions are wanted. WIREGUARD_DEVICE: the device, where the routes into it are wanted.
: "${PROBES=}" "${FIREWALLS=}" "${BGP=no}" "${WIREGUARD_DEVICE=}"
errors=$(mktemp)
trap 'rm -f -- "$errors"' EXIT

section() { # NAME COMMAND…
  local status=0
  printf '\036%s\n' "$1"
  shift
  "$@" 2>"$errors" || status=$?
  ((status == 0)) || cat -- "$errors"
  printf '\n\037%s\n' "$status"
}

# A line "PATH CONTENT" for each: \n is a newline in it, and \\ a backslash.
cni_files() {
  local file text
  shopt -s nullglob
  for file in /etc/cni/net.d/*.conf /etc/cni/net.d/*.conflist /etc/cni/net.d/*.json /etc/cni/multus/net.d/*; do
    [[ -f $file ]] || continue
    # Not the file's end but a NUL or too many characters: what is added then makes it no JSON.
    if IFS= read -r -d '' -n 65536 text <"$file"; then text+=' …'; fi
    text=${text//\\/\\\\}
    text=${text//[$'\036\037']/?}
    printf '%s %s\n' "$file" "${text//$'\n'/\\n}"
  done
}

value() { # FILE
  local text
  read -r text <"$1" && printf '%s\n' "$text"
}

# settings FILE…: a line "FILE:VALUE" for each.
settings() {
  local file value
  for file in "$@"; do
    if read -r value <"$file"; then
      printf '%s:%s\n' "$file" "$value"
    elif [[ -e $file ]]; then # else it is gone with its pod
      return 1
    fi
  done
}

crio_default_network() {
  journalctl --quiet --no-pager --output cat --boot --unit crio |
    { grep -F 'Updated default CNI network name to' || true; } | tail -n 1
}

host_local() {
  [[ ! -d /var/lib/cni/networks ]] || find /var/lib/cni/networks -mindepth 2 -type f -name '*.*.*.*'
}

bird() {
  local container
  container=$(crictl ps --quiet --name '^calico-node$' | head -n 1)
  [[ -n $container ]] || { echo "calico-node does not run here" >&2 && return 1; }
  crictl exec "$container" birdcl -s /var/run/calico/bird.ctl show protocols
}

# Two sections have them, and iptables-save runs once.
iptables_rules() {
  [[ -n ${saved-} ]] || saved=$(iptables-save) || return
  printf '%s\n' "$saved"
}

# iptables-save does not show nft's own tables, such as those of /etc/nftables.conf or firewalld.
filter() {
  local found=no
  if command -v iptables-save >/dev/null; then
    iptables_rules || return
    found=yes
  fi
  if command -v nft >/dev/null; then
    nft -nn list ruleset || return
    found=yes
  fi
  [[ $found == yes ]] || { echo "neither iptables nor nft is installed here" >&2 && return 1; }
}

# The NAT rules by each program that is here. nft shows those of iptables in a form that nobody can read, and iptables
# does not show nft's. Felix' rules name ipsets.
nat() {
  if command -v iptables-save >/dev/null; then section 'nat iptables' iptables_rules; fi
  if command -v nft >/dev/null; then section 'nat nft' nft -j list ruleset; fi
  if command -v ipset >/dev/null; then section 'nat ipset' ipset save; fi
}

# Felix takes the first routing table that is free, and a rule that names it. So all tables are searched.
encrypted() {
  ip -4 route show table all type unicast | { grep -F " dev $WIREGUARD_DEVICE " || true; }
}

probe() { # INTERFACE ADDRESS [PORT]
  local namespace enter=()
  if [[ $1 != - ]]; then
    namespace=$(namespace_of "$1") || return
    enter=(ip netns exec "$namespace")
  fi
  if [[ -z ${3-} ]]; then
    # 127, as of every command that is not there: whether the packet would arrive is not known.
    [[ -x $(command -v ping) ]] ||
      { echo "ping is not installed on $(uname -n): apt-get install iputils-ping" >&2 && return 127; }
    # A packet every 0.3 s until the first answer, for three seconds at most.
    "${enter[@]}" ping -n -c 1 -i 0.3 -W 1 -w 3 "$2"
    return
  fi
  # By bash itself, for not every node has nc. /proc/net/tcp has the port of this end.
  # shellcheck disable=SC2016 # the inner bash's own
  "${enter[@]}" timeout 3 bash -c 'exec 3<>"/dev/tcp/$1/$2" && echo connected && cat /proc/net/tcp' - "$2" "$3" 2>&1
  # The node's conntrack knows to which endpoint of a Service the connection went.
  if command -v conntrack >/dev/null; then
    conntrack --dump --proto tcp --orig-dst "$2" --orig-port-dst "$3" 2>>"$errors" || true
  elif [[ -r /proc/net/nf_conntrack ]]; then
    # Not every kernel has this file.
    grep -F " dst=$2 " /proc/net/nf_conntrack | grep -F " dport=$3 " || true
  fi
}

# Both sections by one process, for a node may have a hundred pods. Between them is the line of lo, which every
# namespace has.
routes_and_neighbours() { # PREFIX OPTION-OF-IP…
  local status=0 prefix=$1 printed
  shift
  printed=$(ip "$@" -4 -o -batch - <<<$'route show\nlink show dev lo\nneigh show' 2>"$errors") || status=$?
  ((status == 0)) || printed=$(<"$errors")$'\n1: lo: \n'$(<"$errors")
  printed=$'\n'$printed$'\n'
  printf '\036%sroute\n%s\n\037%s\n' "$prefix" "${printed%%$'\n1: lo: '*}" "$status"
  printed=${printed#*$'\n1: lo: '}
  printf '\036%sneighbour\n%s\n\037%s\n' "$prefix" "${printed#*$'\n'}" "$status"
}

# Before all else, so that the pods' ARP entries are fresh when they are read.
while read -r interface address port; do
  [[ -z $interface ]] || section "probe $interface $address${port:+ $port}" probe "$interface" "$address" "$port"
done <<<"$PROBES"

section link ip -j -d addr show
routes_and_neighbours ''
section fdb bridge fdb show
section proxy_arp settings /proc/sys/net/ipv4/conf/*/proxy_arp
section rp_filter settings /proc/sys/net/ipv4/conf/*/rp_filter
section ip_forward value /proc/sys/net/ipv4/ip_forward
section file cni_files
section crio crio_default_network
section host_local host_local
section filter filter
nat
if [[ $BGP == yes ]]; then section bgp bird; fi
if [[ -n $WIREGUARD_DEVICE ]]; then section encrypted encrypted; fi

while read -r name; do
  section "pod $name link" ip -n "$name" -j -d addr show
  routes_and_neighbours "pod $name " -n "$name"
done < <(namespaces)

pod_filter() { # NAMESPACE
  ip netns exec "$1" bash -c "$(declare -f iptables_rules filter); filter"
}
read -ra firewalls <<<"$FIREWALLS"
for interface in "${firewalls[@]}"; do
  # A pod that is gone is known from its links.
  name=$(namespace_of "$interface" 2>"$errors") || continue
  section "pod $name ip_forward" ip netns exec "$name" cat /proc/sys/net/ipv4/ip_forward
  section "pod $name filter" pod_filter "$name"
done
