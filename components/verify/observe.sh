# shellcheck shell=bash
# Read a node's data path; print it in sections: RS NAME newline, what the command printed, US STATUS newline.
# Nothing is changed. PROBES: lines "INTERFACE ADDRESS", a pod's host-side interface and whom that pod shall ping.
# BGP: yes where BIRD's sessions are wanted. WIREGUARD: yes where the routes into WireGuard are.
: "${PROBES=}" "${BGP=no}" "${WIREGUARD=no}"
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

# iproute2 before 4.14 knows no -j; its text says the same.
if ip -j link show lo >"$errors" 2>&1; then json=yes; else json=no; fi
links() { # [-n NAMESPACE]
  if [[ $json == yes ]]; then ip "$@" -j -d addr show; else ip "$@" -o -d link show && ip "$@" -o -4 addr show; fi
}

cni_files() {
  local file
  shopt -s nullglob
  for file in /etc/cni/net.d/*.conf /etc/cni/net.d/*.conflist /etc/cni/net.d/*.json /etc/cni/multus/net.d/*; do
    [[ -f $file ]] && printf '%s %s\n' "$file" "$(head -c 65536 -- "$file" | base64 -w 0)"
  done
  return 0
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

# iptables-save passes over the tables of nft's own, such as those of /etc/nftables.conf or firewalld.
filter() {
  iptables-save || return
  ! command -v nft >/dev/null || nft -nn list ruleset
}

# Felix takes the first table that is free, which a rule names; the main table knows nothing of it.
encrypted() {
  ip -4 route show table all type unicast | { grep -F ' dev wireguard.cali ' || true; }
}

# A pod's host-side interface and its namespace know each other by the interface's index.
declare -A namespace_of=()
for path in /run/netns/*; do
  # A pod on the host's network has the node's own namespace.
  [[ -e $path && ! $path -ef /proc/self/ns/net ]] || continue
  peer=$(ip -n "${path##*/}" -o link show eth0 2>"$errors") || continue
  peer=${peer#*@if}
  namespace_of[${peer%%:*}]=${path##*/}
done

probe() { # INTERFACE ADDRESS
  local index
  index=$(ip -o link show dev "$1")
  index=${index%%:*}
  [[ -n ${namespace_of[$index]-} ]] || { echo "no pod behind $1" >&2 && return 1; }
  # A packet every 0.3 s until the first answer, for three seconds at most.
  ip netns exec "${namespace_of[$index]}" ping -n -c 1 -i 0.3 -W 1 -w 3 "$2"
}
# First, so that the pods' ARP entries are fresh when they are read.
while read -r interface address; do
  [[ -z $interface ]] || section "probe $interface $address" probe "$interface" "$address"
done <<<"$PROBES"

section links links
section routes ip -4 route show
section neighbours ip -4 neigh show
section fdb bridge fdb show
section proxy_arp grep -H . /proc/sys/net/ipv4/conf/*/proxy_arp
section ip_forward cat /proc/sys/net/ipv4/ip_forward
section files cni_files
section crio crio_default_network
section host_local host_local
section filter filter
if [[ $BGP == yes ]]; then section bgp bird; fi
if [[ $WIREGUARD == yes ]]; then section encrypted encrypted; fi

for name in "${namespace_of[@]}"; do
  section "pod $name links" links -n "$name"
  section "pod $name routes" ip -n "$name" -4 route show
  section "pod $name neighbours" ip -n "$name" -4 neigh show
done
