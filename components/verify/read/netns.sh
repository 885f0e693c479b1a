# shellcheck shell=bash
# Functions that find the network namespaces of a node's pods. Comes before another script in one program.

# Index of a host-side interface → name of the namespace whose eth0 is its other end.
declare -A namespace_by_index=()
find_namespaces() {
  local path line
  for path in /run/netns/*; do
    # A pod on the host's network has the node's own namespace.
    [[ -e $path && ! $path -ef /proc/self/ns/net ]] || continue
    while read -r line; do
      if [[ $line =~ ^[0-9]+:\ eth0@if([0-9]+): ]]; then namespace_by_index[${BASH_REMATCH[1]}]=${path##*/}; fi
    done < <(ip -n "${path##*/}" -o link show type veth)
  done
}
find_namespaces

# namespaces: prints their names, one a line.
namespaces() {
  local name
  for name in "${namespace_by_index[@]}"; do printf '%s\n' "$name"; done
}

# namespace_of INTERFACE: prints the name of the namespace behind a host-side interface.
namespace_of() {
  local index
  [[ -e /sys/class/net/$1 ]] || { echo "there is no interface $1: the pod is gone from this node" >&2 && return 1; }
  index=$(<"/sys/class/net/$1/ifindex")
  [[ -n ${namespace_by_index[$index]-} ]] ||
    { echo "there is no network namespace behind $1: the pod's sandbox is gone" >&2 && return 1; }
  printf '%s\n' "${namespace_by_index[$index]}"
}
