#!/usr/bin/env bash
# kernel.sh create: fails if this computer's kernel lacks what the lab's mode needs, or has limits too low for the lab.
# Environment: KERNEL, module names separated by spaces; TUNNEL_LINKS (see modules.sh); MACHINES, how many.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=components/machines/local/lib.sh
source "$here/lib.sh"
# shellcheck source=components/node/modules.sh
source "$here/../../node/modules.sh"
: "${KERNEL:?}" "${MACHINES:?}"

# In one machine, systemd, CRI-O, kubelet and the pods use about 40 inotify instances. All machines' count for one user.
INSTANCES=64

create() {
  local module said instances
  instances=$(</proc/sys/fs/inotify/max_user_instances)
  # In a file, because a restart of the computer forgets `sysctl -w`.
  ((instances >= MACHINES * INSTANCES)) || fail "fs.inotify.max_user_instances is $instances on this computer, and" \
    "$MACHINES machines need $((MACHINES * INSTANCES)) (CRI-O ends with \"too many open files\" otherwise):" \
    "echo fs.inotify.max_user_instances=$((MACHINES * INSTANCES)) >>/etc/sysctl.d/90-cni-lab.conf; sysctl --system"
  for module in $KERNEL; do
    said=$(has_module "$module" 2>&1) || fail "this computer's kernel lacks $module, which this lab needs" \
      "(${said//$'\n'/; }); choose another encapsulation or network type, or a kernel that has it"
  done
  log "kernel $(uname -r) has $KERNEL"
}

case ${1:-} in
  create) create ;;
  *) fail "usage: kernel.sh create" ;;
esac
