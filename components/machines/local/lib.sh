# shellcheck shell=bash
# Functions for the other scripts here: messages, locks, the container engine, and what belongs to this lab.
# Everything that a lab makes carries two labels: the stack (STACK), and the fingerprint of the lab's SSH key (OWNER),
# which only this lab's state knows. Anything that lacks one of them is somebody else's and is never touched.
set -euo pipefail

log() { printf '%s\n' "$*" >&2; }

fail() {
  printf 'cni-lab: %s\n' "$*" >&2
  exit 1
}

# error_line TEXT: what an engine's output says is wrong: the lines that begin as an error does, or else the last line.
# `docker start` gives its reason first, and then a line without one, which counts only where it is alone. About an
# option that it does not know, docker's first line says what is wrong, and its last one where to read more.
error_line() {
  local line found='' last=${1##*$'\n'}
  [[ $last != *"--help'"* ]] || last=${1%%$'\n'*}
  while read -r line; do
    [[ $line == [Ee]rror* ]] || continue
    [[ -z $found || $line != "Error: failed to start containers"* ]] || continue
    found+="${found:+; }$line"
  done <<<"$1"
  printf '%s' "${found:-$last}"
}

# How long a wait is silent, and how long between two of its lines; where the locks are. Tests set both.
: "${QUIET_SECONDS:=30}" "${LOCKS:=/run/lock/cni-lab}"

# wait_until SECONDS WHAT COMMAND…: repeat COMMAND until it succeeds. Its output says what is missing, and is shown
# every QUIET_SECONDS. After SECONDS times CNILAB_SLOWDOWN (components/slowdown.py) return 1.
wait_until() {
  local began=$SECONDS limit=$(($1 * ${CNILAB_SLOWDOWN:-1})) what=$2 waited next=$QUIET_SECONDS said
  shift 2
  until said=$("$@" 2>&1); do
    waited=$((SECONDS - began))
    ((waited < limit)) || return 1
    if ((waited >= next)); then
      log "waiting since $waited s until $what${said:+: $(error_line "$said")}"
      next=$((waited + QUIET_SECONDS))
    fi
    sleep 0.3
  done
}

# remind WHAT: from now on say every QUIET_SECONDS that this script waits until WHAT; until `reminded`, or the script's
# end. The reminder has none of our files open but stderr.
remind() {
  local what=$1
  {
    began=$SECONDS next=$QUIET_SECONDS
    while sleep 1 && parent_lives; do
      ((SECONDS - began >= next)) || continue
      log "waiting since $((SECONDS - began)) s until $what"
      next=$((next + QUIET_SECONDS))
    done
  } </dev/null >/dev/null 9>&- &
  reminder=$!
}
reminded() { kill "$reminder" && wait "$reminder" || true; }

# parent_lives: for a background job. A script that has ended is still in /proc while nobody has asked for its status,
# and who started it may wait for the end of its output first, which the job holds open. So the job looks at its own
# parent.
parent_lives() {
  local parent
  read -r _ _ _ parent _ <"/proc/$BASHPID/stat"
  ((parent == $$))
}

# lock NAME SECONDS: allow one run at a time for NAME, even when Pulumi was killed and its scripts still run. A process
# that outlives this script, such as a container's monitor, must be started with 9>&-, or it would keep the lock.
lock() {
  mkdir -p "$LOCKS/${1%/*}"
  exec 9>"$LOCKS/$1"
  wait_until "$2" "another run of this lab is done with $1" flock --nonblock 9 ||
    fail "another run has been working on $1 for $2 s; wait for it, or end it, and run again"
}

# settle: wait until no script creates or removes a machine of this stack; longer than any of them takes.
settle() {
  local file
  for file in "$LOCKS/stacks/$STACK/machine-"*; do
    [[ ! -e $file ]] || wait_until 300 "another run is done with a machine ($file)" flock --nonblock "$file" true ||
      fail "another run has been working on a machine for 300 s ($file); wait for it, or end it, and run again"
  done
}

# engine WORD…: run a command of the engine that changes something. It gets a session of its own, so that a signal to
# our process group does not kill it: an engine that is killed while it starts a container leaves network interfaces and
# addresses behind.
engine() { setsid --wait "$ENGINE" "$@"; }

# exists KIND NAME: whether there is that container, volume or network. If the engine does not answer, the script fails.
# Here and below that is written out, because errexit is off inside a condition.
exists() {
  local names try list=(ls --format '{{.Name}}')
  [[ $1 != container ]] || list=(ls --all --format '{{.Names}}')
  for try in 1 2 3; do
    # A list can fail while another process removes something.
    ! names=$("$ENGINE" "$1" "${list[@]}") || break
    ((try < 3)) || fail "$ENGINE does not list its ${1}s; repair it until '$ENGINE $1 ls' succeeds"
    sleep 1
  done
  [[ $'\n'$names$'\n' == *$'\n'$2$'\n'* ]]
}

# ours KIND NAME: whether there is one that this lab made. Fails if there is one that it did not make.
ours() {
  local labels=.Labels found
  exists "$1" "$2" || return 1
  [[ $1 != container ]] || labels=.Config.Labels
  labels="{{index $labels \"cni-lab.stack\"}} {{index $labels \"cni-lab.owner\"}}"
  found=$("$ENGINE" "$1" inspect --format "$labels" "$2") ||
    fail "$ENGINE does not show the labels of the $1 $2; run again"
  [[ $found == "$STACK $OWNER" ]] || fail "the $1 $2 exists in $ENGINE, and this lab did not make it;" \
    "rename this stack, or, if nobody needs it: $ENGINE $1 rm --force $2"
}

# listed KIND [FILTER…]: the names of this lab's containers, volumes or networks.
listed() {
  local kind=$1 format='{{.Name}}' list=(ls) filter
  shift
  [[ $kind != container ]] || { format='{{.Names}}' list=(ls --all); }
  for filter in "label=cni-lab.stack=$STACK" "label=cni-lab.owner=$OWNER" "$@"; do list+=(--filter "$filter"); done
  "$ENGINE" "$kind" "${list[@]}" --format "$format" || fail "$ENGINE does not list this lab's ${kind}s; run again"
}

remove_volume() {
  local said
  said=$(engine volume rm "$1" 2>&1) || ! exists volume "$1" ||
    fail "$ENGINE cannot remove the volume $1 ($(error_line "$said")); run again"
}

# Removes the container and its anonymous volumes. Nested mounts can keep it busy for a moment after it is killed.
remove_container() {
  local try now=()
  [[ $ENGINE != podman ]] || now=(--time 0)
  for try in 1 2 3; do
    ! engine rm --force --volumes "${now[@]}" "$1" >/dev/null || return 0
    exists container "$1" || return 0
    sleep "$try"
  done
  fail "$ENGINE cannot remove the container $1; see its message above, then run again"
}
