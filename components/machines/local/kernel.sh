#!/usr/bin/env bash
# kernel.sh create: refuses a computer whose kernel lacks what the lab's mode needs, or is too narrow for it.
# Environment: KERNEL, module names separated by spaces; MACHINES, how many.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=components/machines/local/lib.sh
source "$here/lib.sh"
: "${KERNEL:?}" "${MACHINES:?}"

# systemd, CRI-O, kubelet and the pods of one machine watch files by about 40 instances, all counted for one user.
INSTANCES=64

# Links are made for real, in a network namespace that ends with the command: modules may be built in.
has() {
  case $1 in
    overlay) grep -qw overlay /proc/filesystems ;;
    br_netfilter) [[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]] ;;
    vxlan) unshare --net ip link add probe type vxlan id 1 dstport 4789 local 127.0.0.1 ;;
    ipip) unshare --net ip link add probe type ipip local 127.0.0.1 remote 127.0.0.2 ;;
    nf_tables) unshare --net nft list tables ;;
    wireguard | bridge) unshare --net ip link add probe type "$1" ;;
    macvlan | ipvlan)
      unshare --net sh -c "ip link add low type veth peer name high && ip link add probe link low type $1"
      ;;
    *) fail "KERNEL names $1, which has no probe; this is a mistake in the program" ;;
  esac
}

create() {
  local module said instances
  instances=$(</proc/sys/fs/inotify/max_user_instances)
  ((instances >= MACHINES * INSTANCES)) || fail "fs.inotify.max_user_instances is $instances on this computer, and" \
    "$MACHINES machines need $((MACHINES * INSTANCES)) (CRI-O ends with \"too many open files\" otherwise):" \
    "sysctl -w fs.inotify.max_user_instances=$((MACHINES * INSTANCES))"
  for module in $KERNEL; do
    if command -v modprobe >/dev/null; then
      said=$(modprobe "$module" 2>&1) || log "modprobe $module: ${said:-refused}; trying whether it is built in"
    fi
    said=$(has "$module" 2>&1) || fail "this computer's kernel lacks $module, which this lab needs" \
      "(${said:-not in /proc}); choose another encapsulation or network type, or a kernel that has it"
  done
  log "kernel $(uname -r) has $KERNEL"
}

case ${1:-} in
  create) create ;;
  *) fail "usage: kernel.sh create" ;;
esac
