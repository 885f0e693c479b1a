# shellcheck shell=bash
# Functions that find the network namespaces of a node's pods. Comes before another script in one program.

# Host-side interface → name of the namespace that has its other end. `ip` names it after the file in /run/netns, so one
# process finds those of all pods. The node's own eth0 may be such an interface; the other end of that has no name here.
declare -A namespace_by_interface=()
find_namespaces() {
  local line
  while read -r line; do
    if [[ $line =~ ^[0-9]+:\ ([^@:]+)@.*\ link-netns\ ([^ ]+) ]]; then
      namespace_by_interface[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
    fi
  done < <(ip -o link show type veth)
}
find_namespaces

# namespaces: prints their names, one a line.
namespaces() {
  local name
  local -A printed=()
  for name in "${namespace_by_interface[@]}"; do
    [[ -n ${printed[$name]-} ]] || echo "$name"
    printed[$name]=yes
  done
}

# namespace_of INTERFACE: prints the name of the namespace behind a host-side interface.
namespace_of() {
  [[ -e /sys/class/net/$1 ]] || { echo "there is no interface $1: the pod is gone from this node" >&2 && return 1; }
  [[ -n ${namespace_by_interface[$1]-} ]] ||
    { echo "there is no network namespace behind $1: the pod's sandbox is gone" >&2 && return 1; }
  printf '%s\n' "${namespace_by_interface[$1]}"
}
