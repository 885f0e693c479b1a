# shellcheck shell=bash
# Listen at several places of a node at once, until each saw its packets or PATIENCE seconds are over; print sections
# as observe.sh does. POINTS: lines "NUMBER|POD|DEVICE|FILTER", POD being the host side of a pod's eth0 to listen inside
# that pod, or nothing. When all listen, the line "ready" goes to stdout; a line on stdin then says go on: with PING
# ("POD ADDRESS") ping once from that pod, else stop, for what was to be seen has been sent.
: "${POINTS:?}" "${PATIENCE:?}" "${PING=}"
command -v tcpdump >&2 || { echo "tcpdump is not installed on $(uname -n): apt-get install tcpdump" >&2 && exit 3; }
work=$(mktemp -d)
pids=()
stop() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>>"$work/kill" || true; done
  rm -rf -- "$work"
}
trap stop EXIT

inside() { # POD → the name of its namespace
  local path peer index
  index=$(ip -o link show dev "$1")
  index=${index%%:*}
  for path in /run/netns/*; do
    [[ -e $path && ! $path -ef /proc/self/ns/net ]] || continue
    peer=$(ip -n "${path##*/}" -o link show eth0 2>>"$work/skipped") || continue
    peer=${peer#*@if}
    if [[ ${peer%%:*} == "$index" ]]; then
      echo "${path##*/}"
      return 0
    fi
  done
  echo "no pod behind $1" >&2
  return 1
}

numbers=()
started=()
while IFS='|' read -r number pod device filter; do
  [[ -n $number ]] || continue
  numbers+=("$number")
  enter=()
  if [[ -n $pod ]]; then
    namespace=$(inside "$pod") || continue
    enter=(ip netns exec "$namespace")
  fi
  # -Z root: tcpdump's own user may not write where it is told to.
  "${enter[@]}" timeout "$((2 * PATIENCE))" \
    tcpdump -Z root -l -n -e -v -tt --immediate-mode -c 8 -i "$device" "$filter" \
    >"$work/$number.out" 2>"$work/$number.err" &
  pids+=($!)
  started+=("$number")
done <<<"$POINTS"

listening() {
  local number
  for number in "${started[@]}"; do
    [[ -e $work/$number.err ]] && grep -q -E 'listening on|tcpdump: ' -- "$work/$number.err" || return 1
  done
}
for ((try = 0; try < 10 * PATIENCE; try++)); do
  if listening; then break; fi
  sleep 0.1
done
echo ready
read -r -t "$PATIENCE" || true
if [[ -n $PING ]]; then
  read -r pod address <<<"$PING"
  if namespace=$(inside "$pod"); then ip netns exec "$namespace" ping -n -c 1 -W 2 "$address" || true; fi
fi
# The last packets may still be on their way into the files.
sleep 0.5
for pid in "${pids[@]}"; do kill -INT "$pid" 2>>"$work/kill" || true; done
for pid in "${pids[@]}"; do wait "$pid" || true; done
for number in "${numbers[@]}"; do
  printf '\036%s\n' "$number"
  cat -- "$work/$number.out" || true
  printf '\n\037%s\n' "$(grep -c . "$work/$number.out" || true)"
done
