#!/usr/bin/env bash
# What every script of a step can use. Comes first in the program; taking the step's lock is part of loading it.
# Logs go to stderr, results to stdout; no function prints the content of a file.
set -euo pipefail

# Both are elsewhere only in tests.
: "${CNI_LAB_STATE:=/var/lib/cni-lab}" "${CNI_LAB_LOCK:=/run/lock/cni-lab}"
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
umask 022

# log MESSAGE…
log() { printf 'cni-lab: %s\n' "$*" >&2; }

# fail MESSAGE…: the message says what to do.
fail() {
  printf 'cni-lab: error: %s\n' "$*" >&2
  exit 1
}

# uptime_seconds: a clock that does not jump when time is first synchronised.
uptime_seconds() {
  local seconds
  read -r seconds _ </proc/uptime
  printf '%s' "${seconds%.*}"
}

# wait_for SECONDS WHAT COMMAND…: repeat COMMAND until it succeeds; fail with its last words after SECONDS.
wait_for() {
  local deadline=$(($(uptime_seconds) + $1)) seconds=$1 what=$2 output
  shift 2
  until output=$("$@" 2>&1); do
    (($(uptime_seconds) < deadline)) || fail "$what: not within $seconds s. Last answer: ${output:-none}"
    sleep 1
  done
}

# retry TIMES COMMAND…: run COMMAND up to TIMES times with growing pauses; its last status.
retry() {
  local times=$1 try status
  shift
  for ((try = 1; ; try++)); do
    status=0
    "$@" || status=$?
    ((status != 0 && try < times)) || return "$status"
    log "try $try of $times failed with status $status: $1"
    sleep $((try < 8 ? try * 2 : 15))
  done
}

# contains ITEM LIST…
contains() {
  local item=$1 other
  shift
  for other in "$@"; do
    if [[ $other == "$item" ]]; then return 0; fi
  done
  return 1
}

# in_list ITEM FILE: ITEM is a line of FILE.
in_list() { [[ -e $2 ]] && grep -qxF -- "$1" "$2"; }

# replace PATH MODE CONTENT: write whole or not at all. The temporary name starts with a dot and has no suffix that
# anything which reads the directory would take for its own.
replace() {
  local path=$1 mode=$2 directory temporary
  directory=$(dirname -- "$path")
  [[ ! -d $path ]] || fail "$path is a directory where a file is wanted: move it away"
  mkdir -p -- "$directory" || fail "cannot make $directory: see the line above"
  # What an earlier run that was cut left behind: each file has one writer, and that one the lock.
  rm -f -- "$directory/.cni-lab.${path##*/}".*
  temporary=$(mktemp -- "$directory/.cni-lab.${path##*/}.XXXXXX") ||
    fail "cannot write in $directory: free some space there (df -h '$directory'; df -i) or make it writable"
  if ! { printf '%s' "$3" >"$temporary" && chmod -- "$mode" "$temporary" && sync -- "$temporary" &&
    mv -fT -- "$temporary" "$path" && sync -- "$directory"; }; then
    rm -f -- "$temporary"
    fail "cannot write $path, which is as it was: free some space in $directory (df -h '$directory'; df -i)"
  fi
}

# alone COMMAND…: run it while no other step of this host does so; for the list of changes, which they share.
alone() {
  mkdir -p -- "$CNI_LAB_STATE"
  (flock -w 60 8 || fail "$CNI_LAB_STATE/lists is locked since 60 s: end the step that hangs (fuser), then repeat" &&
    "$@") 8>"$CNI_LAB_STATE/lists" || exit
}

# write_list FILE LINE…: one item a line.
write_list() {
  local file=$1
  shift
  replace "$file" 0600 "$(printf '%s\n' "$@")"$'\n'
}

# write_file PATH MODE <CONTENT: write PATH unless content, mode and owner are so already. Before it moves, PATH enters
# the manifest of PHASE (so that no cut can make us forget it) and the list of changes not acted on yet.
write_file() {
  local path=$1 mode=$2 content
  IFS= read -r -d '' content || true
  if [[ -f $path && ! -L $path && $(stat -c '%a %u' -- "$path") == "$(printf '%o' "$((8#$mode))") $EUID" ]] &&
    cmp -s -- "$path" <(printf '%s' "$content"); then
    return
  fi
  add_line "$path" "$CNI_LAB_STATE/files/${PHASE:?}"
  alone add_line "$path" "$CNI_LAB_STATE/changed"
  replace "$path" "$mode" "$content"
  log "wrote $path"
}

# add_line ITEM FILE: unless it is there.
add_line() {
  local lines=()
  if in_list "$1" "$2"; then return; fi
  [[ ! -e $2 ]] || mapfile -t lines <"$2"
  write_list "$2" "${lines[@]}" "$1"
}

# changed PATH…: one of them was written, by this run or by one that was cut, and nothing acted on it yet.
changed() {
  local path
  for path in "$@"; do
    if in_list "$path" "$CNI_LAB_STATE/changed"; then return 0; fi
  done
  return 1
}

# settled PATH…: what had to follow from their change is done.
settled() { ! changed "$@" || alone remove_lines "$CNI_LAB_STATE/changed" "$@"; }

# remove_lines FILE ITEM…
remove_lines() {
  local file=$1 line
  local -a lines=() left=()
  shift
  mapfile -t lines <"$file"
  for line in "${lines[@]}"; do
    contains "$line" "$@" || left+=("$line")
  done
  if ((${#left[@]})); then write_list "$file" "${left[@]}"; else rm -f -- "$file"; fi
}

# keep_files PHASE PATH…: remove what PHASE wrote earlier and does not want any more; never a file we did not write.
keep_files() {
  local manifest=$CNI_LAB_STATE/files/$1 path
  local -a listed=() kept=()
  shift
  [[ -e $manifest ]] || return 0
  mapfile -t listed <"$manifest"
  for path in "${listed[@]}"; do
    if contains "$path" "$@"; then
      kept+=("$path")
    elif [[ -e $path || -L $path ]]; then
      rm -f -- "$path" || fail "cannot remove $path: see the line above"
      alone add_line "$path" "$CNI_LAB_STATE/changed"
      log "removed $path"
    fi
  done
  if ((${#kept[@]} == 0)); then
    rm -f -- "$manifest"
  elif ((${#kept[@]} != ${#listed[@]})); then
    write_list "$manifest" "${kept[@]}"
  fi
}

# wanted PATH: the content that write_files has for PATH; nothing when it has none.
wanted() {
  local wanted_path=$1
  # shellcheck disable=SC2317,SC2329  # write_files calls both
  (
    write_file() { if [[ $1 == "$wanted_path" ]]; then cat; else cat >/dev/null; fi; }
    keep_files() { :; }
    write_files
  )
}

# refuse_other_ca: a cluster that another CA signed is not ours; called before write_files would replace its CA.
refuse_other_ca() {
  local ca=/etc/kubernetes/pki/ca.crt ours
  ours=$(wanted "$ca")
  [[ ! -e /etc/kubernetes/admin.conf || ! -e $ca || -z $ours || $ours == "$(<"$ca")" ]] ||
    fail "$NODE_NAME carries a cluster whose CA is not this stack's: it is left as it is." \
      "Take that cluster away (kubeadm reset), or replace the machine, and repeat"
}

# download URL FILE: FILE is to be checked by the caller.
download() {
  curl --fail --silent --show-error --location --proto '=https,http,file' --proto-redir '=https,http' \
    --connect-timeout 15 --speed-limit 1 --speed-time 60 --max-time 600 --output "$2" -- "$1"
}

# fetch URL SHA256 DEST: DEST has that checksum afterwards, or is as it was.
fetch() {
  local url=$1 sum=$2 dest=$3 directory temporary found
  directory=$(dirname -- "$dest")
  if [[ -f $dest ]] && printf '%s  %s\n' "$sum" "$dest" | sha256sum --status -c -; then return; fi
  mkdir -p -- "$directory" || fail "cannot make $directory: see the line above"
  rm -f -- "$directory/.cni-lab.${dest##*/}".*
  temporary=$(mktemp -- "$directory/.cni-lab.${dest##*/}.XXXXXX") ||
    fail "cannot write in $directory: free some space there (df -h '$directory'; df -i)"
  if ! retry 5 download "$url" "$temporary"; then
    rm -f -- "$temporary"
    fail "$url cannot be fetched: open the way to it from this host, or set a mirror of it in the stack file"
  fi
  found=$(sha256sum -- "$temporary")
  if [[ ${found%% *} != "$sum" ]]; then
    rm -f -- "$temporary"
    fail "$url has SHA-256 ${found%% *}, wanted $sum: the mirror serves another version, or something altered it"
  fi
  if ! { chmod 0644 -- "$temporary" && sync -- "$temporary" && mv -fT -- "$temporary" "$dest"; }; then
    rm -f -- "$temporary"
    fail "cannot write $dest: free some space in $directory (df -h '$directory')"
  fi
  log "fetched $url"
}

# write_hosts [LINE]: our line in /etc/hosts, and no other of ours. A container engine mounts that file, so that it
# cannot be replaced there, only rewritten.
write_hosts() {
  local hosts
  hosts=${1:+$1 # cni-lab$'\n'}$(sed '/# cni-lab$/d' /etc/hosts)
  if [[ $hosts == "$(</etc/hosts)" ]]; then return; fi
  if mountpoint -q /etc/hosts; then printf '%s\n' "$hosts" >/etc/hosts; else replace /etc/hosts 0644 "$hosts"$'\n'; fi
}

cgroup_version() { if [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]]; then echo v2; else echo v1; fi; }

# kubeadm_run FILE WORD…: what kubeadm prints goes to FILE. On a host with cgroup v1, which kubelet bears by the
# patch that prepare.sh wrote, kubeadm wants to be told as well.
kubeadm_run() {
  local file=$1
  local -a flags=()
  shift
  [[ $(cgroup_version) == v2 ]] || flags=(--ignore-preflight-errors=SystemVerification)
  logged "$file" kubeadm "$@" "${flags[@]}"
}

# without_secrets: stdin without bootstrap tokens and certificate keys.
without_secrets() {
  sed -u -E 's/\b[a-z0-9]{6}\.[a-z0-9]{16}\b/<token>/g; s/(^|[^:0-9a-f])[0-9a-f]{64}\b/\1<key>/g'
}

# logged FILE COMMAND…: COMMAND's whole output goes to FILE (0600); its last lines are shown when it fails.
logged() {
  local file=$1 status=0
  shift
  mkdir -p -- "${file%/*}"
  (umask 077 && : >"$file")
  "$@" >"$file" 2>&1 || status=$?
  # kubeadm lists the kernel's options, in colours, before it says what is wrong.
  ((status == 0)) || sed '/^\x1b/d' -- "$file" | tail -n 20 | without_secrets >&2
  return "$status"
}

# take_lock: no step runs twice at once, also when a cut connection left the last run or a child of it running: every
# process that inherits the descriptor holds the lock. A script that a step calls under the same lock has it by that.
take_lock() {
  mkdir -p -- "${CNI_LAB_LOCK%/*}"
  [[ /proc/self/fd/9 -ef $CNI_LAB_LOCK ]] || exec 9<>"$CNI_LAB_LOCK"
  if ! flock -w "${CNI_LAB_LOCK_WAIT:-300}" 9; then
    local holder
    read -r holder <"$CNI_LAB_LOCK" || true
    fail "an earlier run of this step still goes on on this host (process ${holder:-unknown}): wait for it or end it," \
      "then repeat"
  fi
  printf '%-10s\n' "$$" >"$CNI_LAB_LOCK"
}
take_lock
