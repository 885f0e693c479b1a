#!/usr/bin/env bash
# Functions for every script of a step. This file comes first in the program, and takes the step's lock when it loads.
# Logs go to stderr, results to stdout. No function prints the content of a file.
set -euo pipefail

# Tests set these to other places.
: "${CNI_LAB_STATE:=/var/lib/cni-lab}" "${CNI_LAB_LOCK:=/run/lock/cni-lab}" "${CNI_LAB_LOGS:=/var/log/cni-lab}"
ADMIN_CONF=/etc/kubernetes/admin.conf
# shellcheck disable=SC2034  # for the scripts that come after
KUBELET_CONF=/etc/kubernetes/kubelet.conf
CRI_SOCKET=unix:///var/run/crio/crio.sock
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
umask 022

# --- messages, waiting, lists -----------------------------------------------------------------------------------------

# log MESSAGE…
log() { printf 'cni-lab: %s\n' "$*" >&2; }

# fail MESSAGE…: print the message, which says how to fix the problem, and exit.
fail() {
  printf 'cni-lab: error: %s\n' "$*" >&2
  exit 1
}

# uptime_seconds: a clock that does not jump when the time is first synchronised.
uptime_seconds() {
  local seconds
  read -r seconds _ </proc/uptime
  printf '%s' "${seconds%.*}"
}

# How long a wait is silent, and how long between two of its lines. The status with which a repeated command says that
# waiting does not help.
: "${QUIET_SECONDS:=30}" "${REPEAT_SECONDS:=30}"
HOPELESS=3
# How long a cluster's API may be away: kubelet starts a container that crashed repeatedly again after up to 300 s
# (MaxContainerBackOff). See end_back_off.
# shellcheck disable=SC2034  # for the scripts that come after
API_TIMEOUT_SECONDS=420
# How long an API server may have ended before kubelet is restarted, and how long kubelet then has to start it.
BACK_OFF_SECONDS=20
# A factor for every limit on time (components/slowdown.py).
: "${SLOWDOWN:=1}"

# wait_for SECONDS WHAT COMMAND…: repeat COMMAND until it succeeds. Its output says what is missing: after QUIET_SECONDS
# it is logged, and again when it has changed and REPEAT_SECONDS have passed. After SECONDS times SLOWDOWN, and when
# COMMAND returns HOPELESS, fail with its last output. COMMAND sees WAITED_SECONDS.
wait_for() {
  local seconds=$(($1 * SLOWDOWN)) what=$2 began status output WAITED_SECONDS=0 shown=- next=$QUIET_SECONDS
  shift 2
  began=$(uptime_seconds)
  while :; do
    status=0
    WAITED_SECONDS=$(($(uptime_seconds) - began))
    output=$("$@" 2>&1) || status=$?
    ((status != 0)) || return 0
    ((status != HOPELESS)) || fail "$what: waiting longer does not help. Last answer: ${output:-none}"
    ((WAITED_SECONDS < seconds)) || fail "$what: not within $seconds s. Last answer: ${output:-none}"
    if [[ $output != "$shown" ]] && ((WAITED_SECONDS >= next)); then
      log "waiting since $WAITED_SECONDS s for $what: $(one_line "${output:-no answer}")"
      shown=$output
      next=$((WAITED_SECONDS + REPEAT_SECONDS))
    fi
    sleep 1
  done
}

# one_line TEXT: at most 2000 characters of it, with "; " between its lines.
one_line() {
  local text=${1//$'\n'/; }
  printf '%s' "${text:0:2000}"
}

# retry TIMES COMMAND…: run COMMAND until it succeeds, at most TIMES times with growing pauses. Returns its last status.
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

# ipv4_number ADDRESS: the address as a number.
ipv4_number() {
  local IFS=. a b c d
  read -r a b c d <<<"$1"
  echo $(((a << 24) | (b << 16) | (c << 8) | d))
}

# --- files ------------------------------------------------------------------------------------------------------------

# in_list ITEM FILE: ITEM is a line of FILE.
in_list() { [[ -e $2 ]] && grep -qxF -- "$1" "$2"; }

# replace PATH MODE CONTENT: write the whole file, or leave it as it is. The name of the temporary file begins with a
# dot and has no suffix, so that nothing which reads the directory takes it for one of its own files.
replace() {
  local path=$1 mode=$2 directory temporary
  directory=$(dirname -- "$path")
  [[ ! -d $path ]] || fail "$path is a directory where a file is wanted: move it away"
  mkdir -p -- "$directory" || fail "cannot make $directory: see the line above"
  # An interrupted run may have left a temporary file. Nothing else can be writing it now: each file has one writer, and
  # that one holds the lock.
  rm -f -- "$directory/.cni-lab.${path##*/}".*
  temporary=$(mktemp -- "$directory/.cni-lab.${path##*/}.XXXXXX") ||
    fail "cannot write in $directory: free some space there (df -h '$directory'; df -i) or make it writable"
  if ! { printf '%s' "$3" >"$temporary" && chmod -- "$mode" "$temporary" && sync -- "$temporary" &&
    mv -fT -- "$temporary" "$path" && sync -- "$directory"; }; then
    rm -f -- "$temporary"
    fail "cannot write $path, which is unchanged: free some space in $directory (df -h '$directory'; df -i)"
  fi
}

# alone COMMAND…: run COMMAND while no other step of this host does the same. Needed for the list of changes, which all
# steps share.
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

# add_line ITEM FILE: append the item unless the file has it.
add_line() {
  local lines=()
  if in_list "$1" "$2"; then return; fi
  [[ ! -e $2 ]] || mapfile -t lines <"$2"
  write_list "$2" "${lines[@]}" "$1"
}

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

# write_file PATH MODE <CONTENT: write PATH unless its content, mode and owner are right already. PATH first enters the
# manifest of PHASE, so that no interruption can lose it, and the list of changes that still need an action.
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

# changed PATH…: whether this run, or an interrupted one, wrote one of these files and nothing has acted on it yet.
changed() {
  local path
  for path in "$@"; do
    if in_list "$path" "$CNI_LAB_STATE/changed"; then return 0; fi
  done
  return 1
}

# settled PATH…: record that everything which had to follow their change is done.
settled() { ! changed "$@" || alone remove_lines "$CNI_LAB_STATE/changed" "$@"; }

# keep_files PHASE PATH…: remove the files that PHASE wrote earlier, except these. Never removes a file that the lab did
# not write.
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

# wanted PATH: the content that write_files would write to PATH. Prints nothing if it does not write PATH.
wanted() {
  local wanted_path=$1
  # shellcheck disable=SC2317,SC2329  # write_files calls both
  (
    write_file() { if [[ $1 == "$wanted_path" ]]; then cat; else cat >/dev/null; fi; }
    keep_files() { :; }
    write_files
  )
}

# write_hosts [LINE]: make LINE our only line in /etc/hosts, or remove ours. In a container the file is a mount, which
# cannot be replaced, only rewritten.
write_hosts() {
  local hosts
  hosts=${1:+$1 # cni-lab$'\n'}$(sed '/# cni-lab$/d' /etc/hosts)
  if [[ $hosts == "$(</etc/hosts)" ]]; then return; fi
  if mountpoint -q /etc/hosts; then printf '%s\n' "$hosts" >/etc/hosts; else replace /etc/hosts 0644 "$hosts"$'\n'; fi
}

# --- downloads --------------------------------------------------------------------------------------------------------

# download URL FILE: the caller checks what is in FILE.
download() {
  curl --fail --silent --show-error --location --proto '=https,http,file' --proto-redir '=https,http' \
    --connect-timeout 15 --speed-limit 1 --speed-time 60 --max-time 600 --output "$2" -- "$1"
}

# fetch URL SHA256 DEST: afterwards DEST has that checksum. If that fails, DEST is unchanged.
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

# --- Kubernetes -------------------------------------------------------------------------------------------------------

# kube WORD…: kubectl, with a bound on each request.
kube() { kubectl --request-timeout "$((15 * SLOWDOWN))s" "$@"; }

# cri WORD…: run crictl with this host's CRI-O.
cri() { crictl --runtime-endpoint "$CRI_SOCKET" "$@"; }

# refuse_other_ca: fail on a host whose cluster was signed by another CA. Called before write_files could replace that
# CA.
refuse_other_ca() {
  local ca=/etc/kubernetes/pki/ca.crt ours
  ours=$(wanted "$ca")
  [[ ! -e $ADMIN_CONF || ! -e $ca || -z $ours || $ours == "$(<"$ca")" ]] ||
    fail "$NODE_NAME carries a cluster whose CA is not this stack's: it is left as it is." \
      "Take that cluster away (kubeadm reset), or replace the machine, and repeat"
}

cgroup_version() { if [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]]; then echo v2; else echo v1; fi; }

# kubeadm_run FILE WORD…: run kubeadm with its output in FILE. prepare.sh writes a patch that lets kubelet accept
# cgroup v1; kubeadm needs a flag of its own for it.
kubeadm_run() {
  local file=$1 PROGRESS=kubelet_state
  local -a flags=()
  shift
  [[ $(cgroup_version) == v2 ]] || flags=(--ignore-preflight-errors=SystemVerification)
  logged "$file" kubeadm "$@" "${flags[@]}"
}

# kubelet_state: what is wrong with this host's kubelet: that it does not run, or the last error of the last minute.
kubelet_state() {
  local state error
  state=$(systemctl is-active kubelet 2>&1) || echo "kubelet is $state"
  error=$(journalctl --unit kubelet --since -60s --quiet --output cat --no-pager --lines 200 2>&1 |
    sed -n 's/^E[0-9].*\] //p' | tail -n 1)
  [[ -z $error ]] || echo "kubelet: $error"
}

# end_back_off: restart kubelet if this node's API server ended more than BACK_OFF_SECONDS ago and none runs. An API
# server crashes while an interrupted upgrade leaves it without etcd, and each time kubelet waits longer before it
# starts it again, up to 300 s. kubelet keeps these times in memory only (pkg/kubelet/kuberuntime, doBackOff), so after
# its restart it starts the container at once.
end_back_off() {
  local container ended seconds=$((BACK_OFF_SECONDS * SLOWDOWN))
  [[ -e /etc/kubernetes/manifests/kube-apiserver.yaml && -z $(cri ps --quiet --name '^kube-apiserver$') ]] || return 0
  container=$(cri ps --all --latest --quiet --name '^kube-apiserver$')
  [[ -n $container ]] || return 0
  ended=$(cri inspect --output go-template --template '{{.status.finishedAt}}' "$container") &&
    ended=$(date -d "$ended" +%s) || return 0
  # A container that has not started yet has a time in the year 1.
  if ((ended > 0 && $(date +%s) - ended > seconds && $(kubelet_age_seconds) > seconds)); then
    log "kubelet is restarted, because it waits before it starts the API server again"
    systemctl restart kubelet
  fi
}

kubelet_age_seconds() {
  local started
  started=$(systemctl show --property ActiveEnterTimestampMonotonic --value kubelet)
  echo "$(($(uptime_seconds) - started / 1000000))"
}

# kubeadm_reset SECONDS: undo what kubeadm did on this host.
kubeadm_reset() {
  logged "$CNI_LAB_LOGS/kubeadm-reset.log" timeout --kill-after=10 "$1" \
    kubeadm reset --force --cri-socket "$CRI_SOCKET" || return
  # kubeadm leaves etcd's data when it had not written etcd's manifest yet.
  rm -rf -- /var/lib/etcd/member
}

# without_secrets: copy stdin, with bootstrap tokens and certificate keys replaced.
without_secrets() {
  sed -u -E 's/\b[a-z0-9]{6}\.[a-z0-9]{16}\b/<token>/g; s/(^|[^:0-9a-f])[0-9a-f]{64}\b/\1<key>/g'
}

# logged FILE COMMAND…: the whole output of COMMAND goes to FILE (mode 0600). What it does is shown as show_progress
# does; if it fails, its last lines are shown.
logged() {
  local file=$1 status=0 progress
  shift
  mkdir -p -- "${file%/*}"
  (umask 077 && : >"$file")
  # Without the lock, which belongs to the step's own commands.
  show_progress "$file" "$1" 9>&- &
  progress=$!
  "$@" >"$file" 2>&1 || status=$?
  kill "$progress" && wait "$progress" || true
  # kubeadm lists the kernel's options, in colours, before it says what is wrong.
  ((status == 0)) || sed '/^\x1b/d' -- "$file" | tail -n 20 | without_secrets >&2
  return "$status"
}

# show_progress FILE PROGRAM: log the last line of FILE, and what the command PROGRESS prints, after QUIET_SECONDS, and
# again when they have changed and REPEAT_SECONDS have passed. Ends with this script.
show_progress() {
  local began waited said shown='' next=$QUIET_SECONDS
  began=$(uptime_seconds)
  while sleep 1 && [[ -e /proc/$$ ]]; do
    waited=$(($(uptime_seconds) - began))
    ((waited >= next)) || continue
    said=$(sed '/^\x1b/d; /^[[:space:]]*$/d' -- "$1" | tail -n 1)
    if [[ -n ${PROGRESS:-} ]]; then said+=$'\n'$("$PROGRESS"); fi
    if [[ $said != "$shown" ]]; then
      log "$2 runs since $waited s: $(one_line "${said#$'\n'}" | without_secrets)"
      shown=$said
      next=$((waited + REPEAT_SECONDS))
    fi
  done
}

# --- the lock ---------------------------------------------------------------------------------------------------------

# take_lock: no step runs twice at once, even when a cut connection left the last run, or a child of it, running. Every
# process that inherits the descriptor holds the lock, and so does a script that a step calls.
take_lock() {
  mkdir -p -- "${CNI_LAB_LOCK%/*}"
  [[ /proc/self/fd/9 -ef $CNI_LAB_LOCK ]] || exec 9<>"$CNI_LAB_LOCK"
  wait_for "${CNI_LAB_LOCK_WAIT:-300}" "this step's lock" lock_is_ours
  printf '%-10s\n' "$$" >"$CNI_LAB_LOCK"
}

lock_is_ours() {
  local holder=''
  if flock --nonblock 9; then return 0; fi
  read -r holder <"$CNI_LAB_LOCK" || true
  echo "an earlier run of this step still goes on on this host (process ${holder:-unknown}): wait for it or end it," \
    "then repeat"
  return 1
}
take_lock
