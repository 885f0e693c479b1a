# shellcheck shell=bash
# Break one thing of a node on purpose, or put back whatever was broken. What putting back needs is written down first,
# whole or not at all, in JOURNAL/NUMBER-FAULT/; so both may be cut anywhere, and run again.
#
# DO: break, mend. OWNER: what the node's owner file must say. STATE: the lab's directory on the node.
# break: FAULT, its id; KIND, and what that kind wants:
#   filter   RULE: words of iptables that match the packets
#   fdb      MAC: the entry of vxlan.calico
#   sysctl   INTERFACE: the host side of the pod
#   emptied  FILE
#   renamed  FILE
#   route    INTERFACE, and GATEWAY, DEVICE of the wrong default route
# Prints a line "NUMBER-FAULT TAB WHAT" for each thing done.
: "${DO:?}" "${OWNER:?}" "${STATE:=/var/lib/cni-lab}"
: "${FAULT=}" "${KIND=}" "${RULE=}" "${MAC=}" "${INTERFACE=}" "${FILE=}" "${GATEWAY=}" "${DEVICE=}"
umask 077
journal=$STATE/faults
said=$(mktemp)
trap 'rm -f -- "$said"' EXIT

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

[[ -s $STATE/owner ]] || fail "$STATE/owner is not there: this machine is not a lab's, and is left as it is"
[[ $(<"$STATE/owner") == "$OWNER" ]] ||
  fail "this machine belongs to '$(<"$STATE/owner")', not to '$OWNER': it is left as it is"
mkdir -p -- "$journal"
exec 9>"$STATE/faults.lock"
flock -w 20 9 || fail "another break or mend goes on here since 20 s: wait for it, then repeat"
# What a run that was cut had not yet written down whole, or had already put back.
find "$journal" -mindepth 1 -maxdepth 1 -name '.*' -exec rm -rf -- {} +

iptables_() { iptables -w 10 -t raw "$@"; }
drop=(-m comment --comment "cni-lab fault" -j DROP)

# rule_stands MATCH…
rule_stands() {
  local status=0
  iptables_ -C PREROUTING "$@" "${drop[@]}" >"$said" 2>&1 || status=$?
  # 1 says that there is no such rule.
  ((status <= 1)) || fail "iptables cannot be asked: $(<"$said")"
  ((status == 0))
}

proxy_arp_of() { printf '/proc/sys/net/ipv4/conf/%s/proxy_arp' "$1"; }
fdb_entry() { bridge fdb show dev vxlan.calico | grep -i -- "^$1 " || true; }
default_route() { ip -n "$1" -4 route show default; }

# namespace_of INTERFACE: the name of the network namespace at the other end.
namespace_of() {
  local path name peer index
  [[ -e /sys/class/net/$1 ]] || fail "there is no interface $1: the pod is not here any more"
  index=$(<"/sys/class/net/$1/ifindex")
  for path in /run/netns/*; do
    [[ -e $path && ! $path -ef /proc/self/ns/net ]] || continue
    name=${path##*/}
    peer=$(ip -n "$name" -o link show eth0 2>"$said") || continue
    peer=${peer#*@if}
    [[ ${peer%%:*} != "$index" ]] || { printf '%s' "$name" && return; }
  done
  fail "no network namespace is behind $1: the pod's sandbox is gone"
}

# The name under which a file is written before it moves to its own; nothing that reads CNI files takes it.
temporary_of() { printf '%s/.cni-lab.%s.fault' "${1%/*}" "${1##*/}"; }

# put FILE COPY: COPY's content, mode, owner and times at FILE, at once or not at all.
put() {
  local temporary
  temporary=$(temporary_of "$1")
  cp -pT --remove-destination -- "$2" "$temporary"
  sync -- "$temporary"
  mv -fT -- "$temporary" "$1"
}

# entries: their names, oldest first.
entries() { find "$journal" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort; }

# --- break ------------------------------------------------------------------------------------------------------------

# note NAME VALUE: into the entry that is being written.
note() { printf '%s\n' "$2" >"$entry/$1"; }

# Look whether the thing is whole, and write down how it is.
write_down() {
  local line
  local -a words
  case $KIND in
    filter)
      read -ra words <<<"$RULE"
      if rule_stands "${words[@]}"; then fail "a rule of an earlier fault drops this already: remove it first"; fi
      note rule "$RULE"
      ;;
    fdb)
      line=$(fdb_entry "$MAC")
      [[ $line =~ ^[0-9a-f:]+\ dst\ [0-9.]+\ self\ permanent\ *$ ]] ||
        fail "the entry of $MAC in vxlan.calico's forwarding table is not as Felix writes it: ${line:-it is not there}"
      note line "$line"
      ;;
    sysctl)
      namespace_of "$INTERFACE" >"$entry/namespace"
      [[ $(<"$(proxy_arp_of "$INTERFACE")") == 1 ]] || fail "proxy_arp of $INTERFACE is off already"
      note interface "$INTERFACE"
      ;;
    emptied | renamed)
      [[ -s $FILE && -f $FILE && ! -L $FILE ]] || fail "$FILE is not there, is empty or is no plain file"
      [[ $KIND == emptied || ! -e $FILE.bak ]] || fail "$FILE.bak is there already: remove it first"
      note file "$FILE"
      cp -p -- "$FILE" "$entry/content"
      ;;
    route)
      namespace_of "$INTERFACE" >"$entry/namespace"
      line=$(default_route "$(<"$entry/namespace")")
      [[ $line =~ ^default\ via\ [0-9.]+\ dev\ [^\ ]+(\ proto\ [^\ ]+|\ onlink)*\ *$ ]] ||
        fail "the pod has not one plain default route but: ${line:-none}"
      [[ $line != *" via $GATEWAY "* ]] || fail "the pod's default route leads to $GATEWAY already"
      note line "$line"
      note wrong "default via $GATEWAY dev $DEVICE"
      ;;
    *) fail "no fault of kind $KIND" ;;
  esac
}

act() {
  local -a words
  case $KIND in
    filter)
      # Before Felix' own chain or behind it: there, nothing accepts a packet of a tunnel.
      read -ra words <"$1/rule"
      iptables_ -I PREROUTING "${words[@]}" "${drop[@]}"
      ;;
    fdb)
      read -ra words <"$1/line"
      bridge fdb del "${words[@]}" dev vxlan.calico
      ;;
    sysctl)
      echo 0 >"$(proxy_arp_of "$INTERFACE")"
      # The pod remembers the gateway a while; it shall ask again now. It may not have asked yet.
      ip -n "$(<"$1/namespace")" neigh flush dev eth0
      ;;
    emptied)
      cp -p -- "$1/content" "$1/empty"
      : >"$1/empty"
      put "$FILE" "$1/empty"
      ;;
    renamed)
      mv -nT -- "$FILE" "$FILE.bak"
      ;;
    route)
      read -ra words <"$1/wrong"
      ip -n "$(<"$1/namespace")" route replace "${words[@]}"
      ;;
  esac
}

break_() {
  local entry last number found
  for found in "$journal"/*-"$FAULT"; do
    [[ ! -e $found ]] || fail "$FAULT is broken here already, or was cut while it broke: mend first"
  done
  last=$(entries | tail -n 1)
  last=${last:-0}
  number=$(printf '%04d' "$((10#${last%%-*} + 1))")
  entry=$(mktemp -d -- "$journal/.XXXXXX")
  note kind "$KIND"
  note at "$(date -u +%FT%TZ)"
  write_down
  sync -- "$entry"/* "$entry"
  mv -T -- "$entry" "$journal/$number-$FAULT"
  sync -- "$journal"
  act "$journal/$number-$FAULT"
  printf '%s\tbroken\n' "$number-$FAULT"
}

# --- mend -------------------------------------------------------------------------------------------------------------

# undo ENTRY: put back what it tells of; say how it went. Nothing is done to what was mended since, by whomever.
undo() {
  local file interface namespace mac line wrong
  local -a words
  case $(<"$1/kind") in
    filter)
      read -ra words <"$1/rule"
      rule_stands "${words[@]}" || { echo "the rule is gone, or was not there yet" && return; }
      iptables_ -D PREROUTING "${words[@]}" "${drop[@]}"
      ;;
    fdb)
      read -ra words <"$1/line"
      mac=${words[0]}
      [[ -e /sys/class/net/vxlan.calico ]] || { echo "vxlan.calico is gone: nothing to put back" && return; }
      [[ -z $(fdb_entry "$mac") ]] || { echo "$mac is there again: Felix wrote it" && return; }
      bridge fdb add "${words[@]}" dev vxlan.calico
      ;;
    sysctl)
      interface=$(<"$1/interface")
      [[ -e $(proxy_arp_of "$interface") ]] || { echo "$interface is gone with its pod" && return; }
      echo 1 >"$(proxy_arp_of "$interface")"
      ;;
    emptied)
      file=$(<"$1/file")
      rm -f -- "$(temporary_of "$file")"
      [[ ! -s $file ]] || { echo "$file has been written again, or was not emptied" && return; }
      mkdir -p -- "${file%/*}"
      put "$file" "$1/content"
      ;;
    renamed)
      file=$(<"$1/file")
      if [[ ! -e $file && -e $file.bak ]]; then
        mv -nT -- "$file.bak" "$file"
      elif [[ ! -e $file ]]; then
        mkdir -p -- "${file%/*}"
        put "$file" "$1/content"
      else
        # Before it broke there was no .bak: this one is ours.
        rm -f -- "$file.bak"
        echo "$file has been written again, or was not renamed" && return
      fi
      ;;
    route)
      namespace=$(<"$1/namespace") line=$(<"$1/line") wrong=$(<"$1/wrong")
      [[ -e /run/netns/$namespace ]] || { echo "the pod is gone, and its routes with it" && return; }
      [[ "$(default_route "$namespace") " == "$wrong "* ]] ||
        { echo "the pod's default route has been changed since, or was not yet" && return; }
      read -ra words <<<"$line"
      ip -n "$namespace" route replace "${words[@]}"
      ;;
    *) fail "$1 is of a kind this program does not know: $(<"$1/kind")" ;;
  esac
  echo "put back"
}

mend() {
  local name how failed='' status=0
  how=$(mktemp -- "$journal/.XXXXXX")
  for name in $(entries | sort -r); do
    # A subshell that is no condition: there, bash would go on behind what fails.
    set +e
    (set -e && undo "$journal/$name" >"$how")
    status=$?
    set -e
    if ((status)); then
      printf '%s could not be put back: see above\n' "$name" >&2
      failed=yes
      continue
    fi
    # Away at once, wherever its removal is cut.
    mv -T -- "$journal/$name" "$journal/.$name"
    rm -rf -- "${journal:?}/.$name"
    printf '%s\t%s\n' "$name" "$(<"$how")"
  done
  rm -f -- "$how"
  [[ -z $failed ]]
}

case $DO in
  break) break_ ;;
  mend) mend ;;
  *) fail "break or mend, not $DO" ;;
esac
