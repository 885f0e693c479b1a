#!/usr/bin/env bash
# engine.sh create|delete: create prints the name of this computer's container engine; delete, which runs last at
# destroy, removes whatever is left of the lab.
# Environment: ENGINE (auto, podman or docker), STACK, OWNER; for delete, PULUMI_COMMAND_STDOUT: what create printed.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=components/machines/local/lib.sh
source "$here/lib.sh"
: "${STACK:?}" "${OWNER:?}" "${ENGINE:?}"

# Rootless engines put their networks and processes into a namespace of their own, also for root (podman unshare, or a
# docker context): this computer does not reach the machines there, and kubelet cannot do its work in them.
refuse_rootless() {
  local said shown='{{.Host.Security.Rootless}}'
  [[ $ENGINE != docker ]] || shown='{{.SecurityOptions}}'
  said=$("$ENGINE" info --format "$shown" 2>&1) ||
    fail "machines.engine: $ENGINE info fails ($(error_line "$said")); repair it until '$ENGINE info' succeeds"
  [[ $said != true && $said != *name=rootless* ]] ||
    fail "machines.engine: $ENGINE is rootless here, and this computer does not reach rootless machines;" \
      "use the $ENGINE of the real root: not in podman unshare, and no rootless docker context"
}

create() {
  local tool said
  [[ $(uname -s) == Linux ]] || fail "machines.provider local needs Linux, this is $(uname -s); use a Linux VM"
  ((EUID == 0)) || fail "machines.provider local needs root, to make networks that this computer can reach:" \
    "sudo ./lab up $STACK"
  for tool in ip nft unshare flock timeout; do
    command -v "$tool" >/dev/null || fail "$tool is not installed; apt install iproute2 nftables util-linux coreutils"
  done
  if [[ $ENGINE == auto ]]; then
    ENGINE=podman
    command -v podman >/dev/null || ! command -v docker >/dev/null || ENGINE=docker
  fi
  command -v "$ENGINE" >/dev/null || fail "machines.engine: $ENGINE is not installed here; apt install $ENGINE"
  said=$("$ENGINE" ps 2>&1) ||
    fail "machines.engine: $ENGINE does not work here ($(error_line "$said")); repair it until '$ENGINE ps' succeeds"
  refuse_rootless
  printf '%s\n' "$ENGINE"
}

# Removes what a killed run made and no state knows. Everything that the state knows is gone by now.
sweep() {
  local name names
  ENGINE=${PULUMI_COMMAND_STDOUT:?}
  settle
  names=$(listed container)
  for name in $names; do
    log "removing a leftover: container $name"
    remove_container "$name"
  done
  names=$(listed volume)
  for name in $names; do
    log "removing a leftover: volume $name"
    remove_volume "$name"
  done
  names=$(listed network)
  for name in $names; do
    log "removing a leftover: network $name"
    ENGINE=$ENGINE NETWORK=$name bash "$here/network.sh" delete
  done
  rm -rf "$LOCKS/stacks/$STACK"
}

case ${1:-} in
  create) create ;;
  delete) sweep ;;
  *) fail "usage: engine.sh create|delete" ;;
esac
