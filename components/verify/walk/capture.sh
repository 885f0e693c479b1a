# shellcheck shell=bash
# Listen at several places of a node at once until a ping has passed, and print sections as observe.sh does: the number
# of a place, and what tcpdump printed there.
#
# POINTS: lines "NUMBER|POD|DEVICE|FILTER"; POD is the host side of the eth0 of the pod to listen in, empty for the node
# itself. When all listen, "ready" goes to stdout. Then, or after LISTEN_SECONDS, comes a line on stdin. With PING
# ("POD ADDRESS [PORT]", where POD "-" is the node itself) that pod then pings once, or opens a TCP connection; without,
# the ping has been sent and the listening ends. Needs netns.sh.
: "${POINTS:?}" "${LISTEN_SECONDS:?}" "${PING=}"
need() { # PROGRAM PACKAGE
  [[ -x $(command -v "$1") ]] || { echo "$1 is not installed on $(uname -n): apt-get install $2" >&2 && exit 3; }
}
need tcpdump tcpdump
# With a port it is bash itself that connects.
if [[ -n $PING && $PING != *' '*' '* ]]; then need ping iputils-ping; fi
work=$(mktemp -d)
pids=()
stop() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>>"$work/kill" || true; done
  rm -rf -- "$work"
}
trap stop EXIT

numbers=()
started=()
while IFS='|' read -r number pod device filter; do
  [[ -n $number ]] || continue
  numbers+=("$number")
  enter=()
  if [[ -n $pod ]]; then
    namespace=$(namespace_of "$pod") || continue
    enter=(ip netns exec "$namespace")
  fi
  # -Z root: tcpdump's own user may not write into this directory.
  "${enter[@]}" timeout "$((2 * LISTEN_SECONDS))" \
    tcpdump -Z root -l -n -e -v -S -tt --immediate-mode -c 8 -i "$device" "$filter" \
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
for ((try = 0; try < 10 * LISTEN_SECONDS; try++)); do
  if listening; then break; fi
  sleep 0.1
done
echo ready
read -r -t "$LISTEN_SECONDS" || true
if [[ -n $PING ]]; then
  read -r pod address port <<<"$PING"
  enter=()
  if [[ $pod != - ]] && namespace=$(namespace_of "$pod"); then enter=(ip netns exec "$namespace"); fi
  if [[ $pod != - && ${#enter[@]} == 0 ]]; then
    echo "the pod is gone" >&2
  elif [[ -n $port ]]; then
    # shellcheck disable=SC2016 # the inner bash's own
    "${enter[@]}" timeout 2 bash -c 'exec 3<>"/dev/tcp/$1/$2"' - "$address" "$port" >&2 || true
  else
    "${enter[@]}" ping -n -c 1 -W 2 "$address" >&2 || true
  fi
fi
# The last packets may not be in the files yet.
sleep 0.5
for pid in "${pids[@]}"; do kill -INT "$pid" 2>>"$work/kill" || true; done
for pid in "${pids[@]}"; do wait "$pid" || true; done
for number in "${numbers[@]}"; do
  printf '\036%s\n' "$number"
  cat -- "$work/$number.out" || true
  printf '\n\037%s\n' "$(grep -c . "$work/$number.out" || true)"
done
