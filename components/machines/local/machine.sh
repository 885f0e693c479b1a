#!/usr/bin/env bash
# machine.sh create|update|delete|start|stop: one machine, a container that runs systemd and sshd. create and update
# print its id. start also waits for a machine that boots already.
# stdin of create: the machine's SSH host key (private). Environment: ENGINE STACK OWNER NODE; for create and start also
# NETWORK ADDRESS IMAGE LOGIN AUTHORIZED_KEY HOST_KEY (public), and these, which may be empty: CPUS MEMORY MOUNTS
# RUN_ARGS (one argument a line).
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=components/machines/local/lib.sh
source "$here/lib.sh"
: "${STACK:?}" "${OWNER:?}" "${ENGINE:?}" "${NODE:?}"
name="cni-lab-$STACK-$NODE"

remove() {
  ! ours container "$name" || remove_container "$name"
  ! ours volume "$name" || remove_volume "$name"
}

running() { [[ $("$ENGINE" container inspect --format '{{.State.Running}}' "$name") == true ]]; }

# how_it_ended: the engine's words on a machine that has stopped.
how_it_ended() {
  local code out_of_memory error
  read -r code out_of_memory error < <("$ENGINE" container inspect \
    --format '{{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}' "$name")
  [[ $out_of_memory != true ]] || error="out of memory: see machines.memory${error:+; $error}"
  printf 'exit status %s' "${code:-unknown}${error:+, $error}"
}

# console_output: what systemd wrote to the container's terminal, without colors and carriage returns.
console_output() {
  timeout 20 "$ENGINE" logs --tail 15 "$name" 2>&1 | sed -E 's/\x1b(\[[0-9;?!]*[A-Za-z]|[c78])//g; s/\r//g'
}

show_last_output() {
  local said
  exists container "$name" || return 0
  log "--- the last output of $NODE:"
  # Of a machine that runs, the journal says more. One that has not booted yet may have no journal.
  if ! running || ! said=$(timeout 20 "$ENGINE" exec "$name" journalctl --no-pager --lines 15 --output cat 2>&1); then
    said=$(console_output || true)
  fi
  log "${said:-nothing}"
  log "---"
}

# Pulumi's state knows nothing of a create that failed, so this removes the machine, after showing its last output.
give_up() {
  local status=$?
  trap - EXIT
  ((status == 0)) || { show_last_output && remove; }
  exit "$status"
}

# waited SECONDS WHAT COMMAND…: wait until COMMAND succeeds. Fails at once when the machine has stopped.
waited() {
  local seconds=$1 what=$2
  shift 2
  wait_until "$seconds" "$what" stopped_or "$@" || fail "$NODE: gave up waiting until $what; its last output is below"
  running || fail "$NODE stopped ($(how_it_ended)) while waiting until $what; its last output is below"
}

# stopped_or COMMAND…: whether COMMAND succeeds, or the machine has stopped, which ends a wait for it.
stopped_or() { "$@" || ! running; }

booted() {
  local state
  state=$(timeout 20 "$ENGINE" exec "$name" systemctl is-system-running 2>&1 || true)
  [[ $state == running || $state == degraded ]] || { echo "systemd is ${state:-silent}" && return 1; }
}

# CRI-O starts a privileged pod, such as kube-proxy, with every capability that the kernel knows, so the machine must
# have those that this computer has. docker before 23 withholds the three newest (moby/moby pull request 41563).
check_capabilities() {
  local here there missing bit lacking=()
  here=$(bounding_set </proc/self/status)
  there=$("$ENGINE" exec "$name" cat /proc/1/status | bounding_set)
  missing=$((16#$here & ~16#$there))
  for ((bit = 0; missing >> bit; bit++)); do ((!(missing >> bit & 1))) || lacking+=("$bit"); done
  ((missing == 0)) || fail "$ENGINE withholds capabilities from $NODE (numbers ${lacking[*]} in linux/capability.h)," \
    "so privileged pods such as kube-proxy could not start: docker before 23 does that, and --cap-drop in" \
    "machines.runArgs; use podman, or docker 23 or later"
}
bounding_set() { awk '$1 == "CapBnd:" { print $2 }'; }

# Whether the machine's sshd answers at its address with the key that Pulumi has pinned. If this computer has no
# ssh-keyscan, whether it answers at all.
answers() {
  local said
  if command -v ssh-keyscan >/dev/null; then
    said=$(ssh-keyscan -T 2 -t ed25519 "$ADDRESS" 2>&1 || true)
    [[ $said == *"$ADDRESS $HOST_KEY"* ]] || { echo "${said:-no answer}" && return 1; }
  else
    said=$(timeout 3 bash -c "exec 3<>/dev/tcp/$ADDRESS/22 && head -c 4 <&3" 2>&1 || true)
    [[ $said == SSH- ]] || { echo "${said:-no answer}" && return 1; }
  fi
}

check_address() {
  local holder holders taken shown='{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'
  holders=$("$ENGINE" ps --all --filter "network=$NETWORK" --format '{{.Names}}')
  for holder in $holders; do
    # A container that is gone by now has no address. Any other error shows again at the start.
    taken=$("$ENGINE" container inspect --format "$shown" "$holder") || continue
    [[ " $taken" != *" $ADDRESS "* ]] || fail "nodes: $ADDRESS of $NODE is taken by the container $holder;" \
      "remove that or give $NODE another address"
  done
}

# resolver_file: this computer's list of name servers for the machines. On its networks docker gives a machine
# 127.0.0.11 alone: a pod, for which that is the pod itself, cannot ask it, and CoreDNS ends because it would ask
# itself.
resolver_file() {
  local file
  for file in /etc/resolv.conf /run/systemd/resolve/resolv.conf; do
    if grep -qsE '^nameserver' "$file" && ! grep -qE '^nameserver[[:space:]]+(127\.|::1)' "$file"; then
      readlink -f "$file"
      return
    fi
  done
  fail "/etc/resolv.conf of this computer names no server that a machine can reach, and docker gives the machines" \
    "none: name one there, or machines.extraMounts: [{hostPath: FILE, containerPath: /etc/resolv.conf}]"
}

# boot: start the container unless it runs, and wait until systemd in it has booted.
boot() {
  local said
  if ! running && ! said=$(engine start "$name" 2>&1 </dev/null 9>&-); then
    [[ $said != *"already allocated"* ]] || fail "nodes: $ENGINE holds $ADDRESS of $NODE for a container that is gone" \
      "($(error_line "$said")); give $NODE another address, or restart this computer"
    fail "$ENGINE cannot start $NODE at $ADDRESS: $(error_line "$said");" \
      "see machines.runArgs, extraMounts, cpus and memory"
  fi
  waited 120 "systemd has booted $NODE" booted </dev/null
  check_capabilities </dev/null
}

create() {
  local options extra said
  remove
  exists network "$NETWORK" || fail "the network $NETWORK is not known to $ENGINE; run ./lab destroy $STACK, then up"
  check_address
  said=$("$ENGINE" image inspect --format '{{.Id}}' "$IMAGE" 2>&1) ||
    fail "the machine image $IMAGE is gone ($(error_line "$said")); load it again, or run ./lab destroy $STACK, then up"
  trap give_up EXIT
  trap 'exit 143' HUP INT TERM
  engine volume create --label "cni-lab.stack=$STACK" --label "cni-lab.owner=$OWNER" "$name" >/dev/null
  options=(--name "$name" --hostname "$NODE" --label "cni-lab.stack=$STACK" --label "cni-lab.owner=$OWNER"
    --label "cni-lab.node=$NODE" --network "$NETWORK" --ip "$ADDRESS" --privileged --pids-limit=-1
    --env "container=$ENGINE" --stop-signal SIGRTMIN+3 --entrypoint /sbin/init)
  # systemd has no journal before it has booted. Its messages until then go to the terminal, or else nowhere.
  options+=(--tty)
  # /var is a volume, because CRI-O's overlays cannot be on the container's own overlay.
  case $ENGINE in
    podman) options+=(--systemd=always --volume "$name:/var:dev,exec,suid") ;;
    docker)
      # What podman's --systemd=always does. Without `exec`, packages cannot run their scripts in /tmp.
      options+=(--cgroupns=private --tmpfs /run:exec --tmpfs /run/lock --tmpfs /tmp:exec --volume "$name:/var")
      if [[ ${MOUNTS:-} != *:/etc/resolv.conf* ]]; then
        said=$(resolver_file)
        options+=(--volume "$said:/etc/resolv.conf:ro")
      fi
      ;;
  esac
  [[ ! -d /lib/modules ]] || options+=(--volume /lib/modules:/lib/modules:ro)
  [[ -z ${CPUS:-} ]] || options+=(--cpus "$CPUS")
  [[ -z ${MEMORY:-} ]] || options+=(--memory "$MEMORY")
  while read -r extra; do
    [[ -n $extra ]] || continue
    # docker would make an empty folder there instead.
    [[ -e ${extra%%:*} ]] ||
      fail "machines.extraMounts: ${extra%%:*} is not on this computer; make it, or correct the path"
    options+=(--volume "$extra")
  done <<<"${MOUNTS:-}"
  while read -r extra; do [[ -z $extra ]] || options+=("$extra"); done <<<"${RUN_ARGS:-}"
  said=$(engine create "${options[@]}" "$IMAGE" 2>&1 </dev/null) ||
    fail "$ENGINE cannot make $NODE: $(error_line "$said"); see machines.runArgs, extraMounts, cpus and memory"
  boot
  # The host key goes from our stdin to the machine's, so it is on no other disk, in no argument and in no environment.
  said=$(timeout 60 "$ENGINE" exec --interactive "$name" bash -c "$(<"$here/inside.sh")" \
    local-inside "$LOGIN" "$AUTHORIZED_KEY" 2>&1) || fail "$NODE cannot be set up for SSH: $said"
  waited 60 "$NODE answers on SSH at $ADDRESS with its own host key" answers </dev/null
  update
  trap - EXIT
}

update() {
  ours container "$name" || fail "$NODE is gone from $ENGINE; ./lab up $STACK --repair makes it again"
  "$ENGINE" container inspect --format '{{.Id}}' "$name"
}

start() {
  update >/dev/null
  trap '(($? == 0)) || show_last_output' EXIT
  boot
  waited 60 "$NODE answers on SSH at $ADDRESS with its own host key" answers </dev/null
}

# A machine that does not end by itself is killed after a minute, as a computer that is switched off.
stop() {
  ours container "$name" || return 0
  if ! running; then return; fi
  remind "$NODE has stopped"
  engine stop -t 60 "$name" >/dev/null || fail "$ENGINE cannot stop $NODE; see its message above, then run again"
  reminded
}

lock "stacks/$STACK/machine-$NODE" 300
case ${1:-} in
  create) : "${NETWORK:?}" "${ADDRESS:?}" "${IMAGE:?}" "${LOGIN:?}" "${AUTHORIZED_KEY:?}" "${HOST_KEY:?}" && create ;;
  start) : "${ADDRESS:?}" "${HOST_KEY:?}" && start ;;
  update | stop) "$1" ;;
  delete) remove ;;
  *) fail "usage: machine.sh create|update|delete|start|stop" ;;
esac
