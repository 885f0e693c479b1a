# shellcheck shell=bash
# Sourced by the other scripts here: messages, the container engine, and what belongs to this lab.
# Everything a lab makes carries two labels: its stack, and the fingerprint of its SSH key (OWNER), which only this
# lab's state knows. What lacks either is somebody else's and is never touched.
set -euo pipefail

log() { printf '%s\n' "$*" >&2; }

fail() {
  printf 'cni-lab: %s\n' "$*" >&2
  exit 1
}

# word_of TEXT: the one line of an engine's answer that says what is wrong.
word_of() {
  local line found=${1##*$'\n'}
  while read -r line; do [[ $line != [Ee]rror* ]] || found=$line; done <<<"$1"
  printf '%s' "$found"
}

LOCKS=/run/lock/cni-lab

# lock NAME SECONDS: one run at a time for what NAME stands for, also after Pulumi was killed and its scripts were not.
# Whatever outlives us (a container's monitor) must be started with 9>&-.
lock() {
  mkdir -p "$LOCKS/${1%/*}"
  exec 9>"$LOCKS/$1"
  flock --wait "$2" 9 || fail "another run has been at work on $1 for $2 s; wait for it, or end it, and run again"
}

# Waits until no script is making or removing a machine of this stack. Longer than any of them takes.
settle() {
  local file
  for file in "$LOCKS/stacks/$STACK/machine-"*; do
    [[ ! -e $file ]] || flock --wait 300 "$file" true ||
      fail "another run has been at work on a machine for 300 s ($file); wait for it, or end it, and run again"
  done
}

# What changes anything runs in a session of its own, so that what kills our process group lets it finish: an engine
# killed in mid-start forgets network interfaces and addresses.
engine() { setsid --wait "$ENGINE" "$@"; }

# exists KIND NAME (container, volume, network). An engine that does not answer ends the script: that is no "no".
# (Said explicitly, here and below, because errexit is off in whatever a condition calls.)
exists() {
  local names try list=(ls --format '{{.Name}}')
  [[ $1 != container ]] || list=(ls --all --format '{{.Names}}')
  for try in 1 2 3; do
    # Listing can stumble over what another process is just removing.
    ! names=$("$ENGINE" "$1" "${list[@]}") || break
    ((try < 3)) || fail "$ENGINE does not say which ${1}s there are; mend it until '$ENGINE $1 ls' succeeds"
    sleep 1
  done
  [[ $'\n'$names$'\n' == *$'\n'$2$'\n'* ]]
}

# ours KIND NAME: false where there is none; a foreign one of that name is refused.
ours() {
  local labels=.Labels found
  exists "$1" "$2" || return 1
  [[ $1 != container ]] || labels=.Config.Labels
  labels="{{index $labels \"cni-lab.stack\"}} {{index $labels \"cni-lab.owner\"}}"
  found=$("$ENGINE" "$1" inspect --format "$labels" "$2") ||
    fail "$ENGINE does not say whose $1 $2 is; run again"
  [[ $found == "$STACK $OWNER" ]] || fail "the $1 $2 exists in $ENGINE and is not of this lab's making;" \
    "rename this stack, or, if nobody needs it: $ENGINE $1 rm --force $2"
}

# listed KIND [FILTER…]: names of this lab's containers, volumes or networks.
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
    fail "$ENGINE cannot remove the volume $1 ($(word_of "$said")); run again"
}

# Anonymous volumes go with the container; nested mounts can keep it busy for a moment after its kill.
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
