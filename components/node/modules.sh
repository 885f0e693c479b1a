# shellcheck shell=bash
# Whether this kernel has what the lab needs. prepare.sh asks on a node, machines/local/kernel.sh on this computer.
# TUNNEL_LINKS: lines "MODULE KIND OPTION…", one for each of the lab's tunnels: the link that needs the module.
: "${TUNNEL_LINKS?}"

# kernel_at_least VERSION
kernel_at_least() { printf '%s\n' "$1" "$(uname -r)" | sort --version-sort --check=quiet; }

# has_module NAME: the module is loadable, or what it does can be done. modprobe alone cannot tell: the code may be
# built in, and a container often has no /lib/modules. Links are made in a network namespace that ends with the command.
# Prints why not.
has_module() {
  local module kind options
  if [[ -n $(command -v modprobe) ]] && modprobe --quiet -- "$1"; then return 0; fi
  while read -r module kind options; do
    if [[ $module == "$1" ]]; then
      # shellcheck disable=SC2086  # one option a word
      unshare --net ip link add probe type "$kind" $options
      return
    fi
  done <<<"${TUNNEL_LINKS%$'\n'}"
  case $1 in
    overlay) grep -qw overlay /proc/filesystems || { echo "overlay is not in /proc/filesystems" && return 1; } ;;
    br_netfilter)
      [[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]] || { echo "there is no /proc/sys/net/bridge" && return 1; }
      ;;
    nf_tables) unshare --net nft list tables ;;
    macvlan | ipvlan)
      unshare --net bash -c "ip link add low type veth peer name high && ip link add probe link low type $1"
      ;;
    *) unshare --net ip link add probe type "$1" ;;
  esac
}
