# shellcheck shell=bash
# Break one thing of a node on purpose, or undo everything that was broken. What is needed to undo it is recorded first,
# whole or not at all, in JOURNAL/NUMBER-FAULT/. So both may be cut anywhere, and run again. Comes after netns.sh.
#
# DO: break, mend. OWNER: what the node's owner file must contain. STATE: the lab's directory on the node.
# VXLAN_DEVICE: Felix's device.
# break: FAULT, its id; KIND, and what that kind needs:
#   filter   RULE: words of iptables that match the packets
#   fdb      MAC: the entry in the forwarding table of VXLAN_DEVICE
#   sysctl   INTERFACE: the host side of the pod
#   emptied  FILE
#   renamed  FILE
#   unplugged INTERFACE: the host side of the pod; DEVICE: the pod's interface that goes down
#   forward  INTERFACE, DEVICE: the pod drops what comes from this interface to be forwarded
#   route    INTERFACE, and GATEWAY, DEVICE of the wrong default route
#   mtu      INTERFACE: the host side of the pod; VALUE: the MTU that its eth0 gets
#   neighbour ADDRESS, DEVICE, MAC: the wrong MAC address that the neighbour gets
#   nat      CIDR: the pool whose packets Felix' chain passes over
#   forwarding  the node forwards nothing
#   rp_filter   DEVICES: what comes in by them is dropped if the answer would leave by another one
#   edited   FILE, OLD, NEW: one text in it becomes another
#   netem    DEVICE, VALUE: delay and loss, in tc's words
# Prints a line "NUMBER-FAULT TAB WHAT" for each thing done.
: "${DO:?}" "${OWNER:?}" "${VXLAN_DEVICE:?}" "${STATE:=/var/lib/cni-lab}"
: "${FAULT=}" "${KIND=}" "${RULE=}" "${MAC=}" "${INTERFACE=}" "${FILE=}" "${GATEWAY=}" "${DEVICE=}"
: "${VALUE=}" "${ADDRESS=}" "${CIDR=}" "${OLD=}" "${NEW=}" "${DEVICES=}"
umask 077
journal=$STATE/faults
errors=$(mktemp)
entry='' # of the journal, while it is written
trap 'rm -f -- "$errors"; [[ -z $entry ]] || rm -rf -- "$entry"' EXIT

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

[[ -s $STATE/owner ]] || fail "$STATE/owner is not there: this machine does not belong to a lab, and is not changed"
[[ $(<"$STATE/owner") == "$OWNER" ]] ||
  fail "this machine belongs to '$(<"$STATE/owner")', not to '$OWNER': it is not changed"
mkdir -p -- "$journal"
exec 9>"$STATE/faults.lock"
flock -w 20 9 || fail "another break or mend has been running here for 20 s: wait for it, then repeat"
# Entries that a run that was cut had not finished writing, or had already undone.
find "$journal" -mindepth 1 -maxdepth 1 -name '.*' -exec rm -rf -- {} +

need() { # PROGRAM PACKAGE
  [[ -x $(command -v "$1") ]] || fail "this fault is made with $1, which is not installed here: apt-get install $2"
}

iptables_raw() { iptables -w 10 -t raw "$@"; }
drop=(-m comment --comment "cni-lab fault" -j DROP)

# has_rule MATCH…
has_rule() {
  local status=0
  iptables_raw -C PREROUTING "$@" "${drop[@]}" >"$errors" 2>&1 || status=$?
  # 1 means that there is no such rule.
  ((status <= 1)) || fail "iptables does not answer: $(<"$errors")"
  ((status == 0))
}

# Before all of the pod's own rules.
forward_rule() { # NAMESPACE -I|-D|-C DEVICE
  ip netns exec "$1" iptables -w 10 "$2" FORWARD -i "$3" "${drop[@]}"
}
has_forward_rule() { # NAMESPACE DEVICE
  local status=0
  forward_rule "$1" -C "$2" >"$errors" 2>&1 || status=$?
  ((status <= 1)) || fail "iptables does not answer: $(<"$errors")"
  ((status == 0))
}

# Felix' own chain, by the tool that made it.
nat_rule() { # -I|-D|-C CIDR
  iptables -w 10 -t nat "$1" cali-nat-outgoing -s "$2" -m comment --comment "cni-lab fault" -j RETURN
}
by_iptables() { iptables -w 10 -t nat -S cali-nat-outgoing >"$errors" 2>&1; }
nft_chain=(ip calico nat-cali-nat-outgoing)
# The handle of the rule; nothing where there is none.
nft_rule() { nft -a list chain "${nft_chain[@]}" | sed -n 's/.*comment "cni-lab fault" # handle \([0-9]*\)$/\1/p'; }
has_nat_rule() { # CIDR
  if by_iptables; then nat_rule -C "$1" >"$errors" 2>&1; else [[ -n $(nft_rule) ]]; fi
}

ip_forward=/proc/sys/net/ipv4/ip_forward
rp_filter_of() { printf '/proc/sys/net/ipv4/conf/%s/rp_filter' "$1"; }
mtu_of() { ip -n "$1" -o link show eth0 | sed -n 's/.* mtu \([0-9]*\) .*/\1/p'; }
mac_of() { ip -4 neigh show "$1" dev "$2" | sed -n 's/.*lladdr \([0-9a-f:]*\) PERMANENT.*/\1/p'; }
has_netem() { [[ $(tc qdisc show dev "$1" root) == *netem* ]]; }

proxy_arp_of() { printf '/proc/sys/net/ipv4/conf/%s/proxy_arp' "$1"; }
fdb_entry() { bridge fdb show dev "$VXLAN_DEVICE" | grep -i -- "^$1 " || true; }
default_route() { ip -n "$1" -4 route show default; }

# The name under which a file is written before it gets its own; programs that read CNI files ignore it.
temporary_of() { printf '%s/.cni-lab.%s.fault' "${1%/*}" "${1##*/}"; }

# put FILE COPY: COPY's content, mode, owner and times at FILE, at once or not at all.
put() {
  local temporary
  temporary=$(temporary_of "$1")
  cp -pT --remove-destination -- "$2" "$temporary"
  sync -- "$temporary"
  mv -fT -- "$temporary" "$1"
}

# entries: their names, oldest first, as bash lists them.
entries() {
  local path
  for path in "$journal"/[0-9]*; do
    [[ ! -e $path ]] || printf '%s\n' "${path##*/}"
  done
}

# --- break ------------------------------------------------------------------------------------------------------------

# note NAME VALUE: into the entry that is being written.
note() { printf '%s\n' "$2" >"$entry/$1"; }

# Check that the thing is intact, and record how it is.
record() {
  local line name value
  local -a words
  case $KIND in
    filter)
      need iptables iptables
      read -ra words <<<"$RULE"
      if has_rule "${words[@]}"; then fail "a rule of an earlier fault drops this already: remove it first"; fi
      note rule "$RULE"
      ;;
    fdb)
      need bridge iproute2
      line=$(fdb_entry "$MAC")
      [[ $line =~ ^[0-9a-f:]+\ dst\ [0-9.]+\ self\ permanent\ *$ ]] ||
        fail "the entry of $MAC in the forwarding table of $VXLAN_DEVICE is not as Felix writes it:" \
          "${line:-it is not there}"
      note line "$line"
      ;;
    sysctl)
      namespace_of "$INTERFACE" >"$entry/namespace"
      [[ $(<"$(proxy_arp_of "$INTERFACE")") == 1 ]] || fail "proxy_arp of $INTERFACE is off already"
      note interface "$INTERFACE"
      ;;
    emptied | renamed)
      [[ -s $FILE && -f $FILE && ! -L $FILE ]] || fail "$FILE is not there, is empty or is not a regular file"
      [[ $KIND == emptied || ! -e $FILE.bak ]] || fail "$FILE.bak is there already: remove it first"
      note file "$FILE"
      cp -p -- "$FILE" "$entry/content"
      ;;
    route)
      namespace_of "$INTERFACE" >"$entry/namespace"
      line=$(default_route "$(<"$entry/namespace")")
      [[ $line =~ ^default\ via\ [0-9.]+\ dev\ [^\ ]+(\ proto\ [^\ ]+|\ onlink)*\ *$ ]] ||
        fail "the pod's default route is not one plain route but: ${line:-none}"
      [[ $line != *" via $GATEWAY "* ]] || fail "the pod's default route leads to $GATEWAY already"
      note line "$line"
      note wrong "default via $GATEWAY dev $DEVICE"
      ;;
    unplugged)
      namespace_of "$INTERFACE" >"$entry/namespace"
      line=$(ip -n "$(<"$entry/namespace")" -o link show "$DEVICE")
      [[ $line =~ \<.*,UP[,\>] ]] || fail "$DEVICE of the pod is down already"
      note device "$DEVICE"
      # The kernel forgets these with the link; it makes those of its own again.
      ip -n "$(<"$entry/namespace")" -4 route show dev "$DEVICE" |
        { grep -v ' proto kernel ' || true; } >"$entry/routes"
      ;;
    forward)
      need iptables iptables
      namespace_of "$INTERFACE" >"$entry/namespace"
      if has_forward_rule "$(<"$entry/namespace")" "$DEVICE"; then fail "the pod drops what it forwards already"; fi
      note device "$DEVICE"
      ;;
    mtu)
      namespace_of "$INTERFACE" >"$entry/namespace"
      note mtu "$(mtu_of "$(<"$entry/namespace")")"
      note wrong "$VALUE"
      [[ $(<"$entry/mtu") != "$VALUE" ]] || fail "the MTU of the pod's eth0 is $VALUE already"
      ;;
    neighbour)
      note mac "$(mac_of "$ADDRESS" "$DEVICE")"
      [[ -n $(<"$entry/mac") ]] || fail "the node has no permanent neighbour $ADDRESS on $DEVICE"
      [[ $(<"$entry/mac") != "$MAC" ]] || fail "$ADDRESS on $DEVICE is at $MAC already"
      note wrong "$MAC"
      note where "$ADDRESS $DEVICE"
      ;;
    nat)
      by_iptables || nft list chain "${nft_chain[@]}" >"$errors" 2>&1 ||
        fail "Felix' chain cali-nat-outgoing is neither in iptables nor in nft"
      if has_nat_rule "$CIDR"; then fail "a rule of an earlier fault passes it over already: remove it first"; fi
      note cidr "$CIDR"
      ;;
    forwarding) [[ $(<"$ip_forward") == 1 ]] || fail "the node forwards nothing already" ;;
    rp_filter)
      # Of `all` and an interface the larger value counts, so both must be 1. Lines "NAME VALUE".
      read -ra words <<<"all $DEVICES"
      line=''
      for name in "${words[@]}"; do
        value=$(<"$(rp_filter_of "$name")")
        [[ $value != 1 ]] || fail "rp_filter of $name is strict already"
        line+="$name $value"$'\n'
      done
      note values "${line%$'\n'}"
      ;;
    edited)
      [[ -s $FILE && -f $FILE && ! -L $FILE ]] || fail "$FILE is not there, is empty or is not a regular file"
      line=$(<"$FILE")
      [[ $line == *"$OLD"* ]] || fail "$FILE has no $OLD"
      note file "$FILE"
      cp -p -- "$FILE" "$entry/content"
      cp -p -- "$FILE" "$entry/edited"
      printf '%s\n' "${line/"$OLD"/"$NEW"}" >"$entry/edited"
      ;;
    netem)
      need tc iproute2
      unshare --net tc qdisc add dev lo root netem delay 1ms 2>"$errors" ||
        fail "this kernel has no sch_netem, which delays packets (Ubuntu: linux-modules-extra): $(<"$errors")"
      if has_netem "$DEVICE"; then fail "$DEVICE delays packets already"; fi
      note device "$DEVICE"
      ;;
    *) fail "there is no fault of kind $KIND" ;;
  esac
}

# act ENTRY
act() {
  local name
  local -a words
  case $KIND in
    filter)
      # Before or after Felix' own chain: in this table nothing accepts a packet of a tunnel.
      read -ra words <"$1/rule"
      iptables_raw -I PREROUTING "${words[@]}" "${drop[@]}"
      ;;
    fdb)
      read -ra words <"$1/line"
      bridge fdb del "${words[@]}" dev "$VXLAN_DEVICE"
      ;;
    sysctl)
      echo 0 >"$(proxy_arp_of "$INTERFACE")"
      # The pod keeps its ARP entry for a while; without it, it must ask again now. It may not have one yet.
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
    unplugged) ip -n "$(<"$1/namespace")" link set "$DEVICE" down ;;
    forward) forward_rule "$(<"$1/namespace")" -I "$DEVICE" ;;
    mtu) ip -n "$(<"$1/namespace")" link set eth0 mtu "$VALUE" ;;
    neighbour) ip neigh replace "$ADDRESS" lladdr "$MAC" dev "$DEVICE" nud permanent ;;
    nat)
      if by_iptables; then
        nat_rule -I "$CIDR"
      else
        nft insert rule "${nft_chain[@]}" ip saddr "$CIDR" return comment '"cni-lab fault"'
      fi
      ;;
    forwarding) echo 0 >"$ip_forward" ;;
    rp_filter)
      read -ra words <<<"all $DEVICES"
      for name in "${words[@]}"; do echo 1 >"$(rp_filter_of "$name")"; done
      ;;
    edited) put "$FILE" "$1/edited" ;;
    netem)
      read -ra words <<<"$VALUE"
      tc qdisc add dev "$DEVICE" root netem "${words[@]}"
      ;;
  esac
}

break_() {
  local last number found
  for found in "$journal"/*-"$FAULT"; do
    [[ ! -e $found ]] || fail "$FAULT is broken here already, or was cut while it broke: mend first"
  done
  last=$(entries | tail -n 1)
  last=${last:-0}
  number=$(printf '%04d' "$((10#${last%%-*} + 1))")
  entry=$(mktemp -d -- "$journal/.XXXXXX")
  note kind "$KIND"
  note at "$(date -u +%FT%TZ)"
  record
  sync -- "$entry"/* "$entry"
  mv -T -- "$entry" "$journal/$number-$FAULT"
  sync -- "$journal"
  act "$journal/$number-$FAULT"
  printf '%s\tbroken\n' "$number-$FAULT"
}

# --- mend -------------------------------------------------------------------------------------------------------------

# undo ENTRY: undo what it records, and print the result. What somebody else has repaired since is left alone.
undo() {
  local file interface namespace mac line wrong name value changed
  local -a words
  case $(<"$1/kind") in
    filter)
      read -ra words <"$1/rule"
      has_rule "${words[@]}" || { echo "the rule is gone, or was not there yet" && return; }
      iptables_raw -D PREROUTING "${words[@]}" "${drop[@]}"
      ;;
    fdb)
      read -ra words <"$1/line"
      mac=${words[0]}
      [[ -e /sys/class/net/$VXLAN_DEVICE ]] || { echo "$VXLAN_DEVICE is gone: there is nothing to put back" && return; }
      [[ -z $(fdb_entry "$mac") ]] || { echo "$mac is there again: Felix wrote it" && return; }
      bridge fdb add "${words[@]}" dev "$VXLAN_DEVICE"
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
        # Before the fault there was no .bak: this one is the fault's.
        rm -f -- "$file.bak"
        echo "$file has been written again, or was not renamed" && return
      fi
      ;;
    route)
      namespace=$(<"$1/namespace") line=$(<"$1/line") wrong=$(<"$1/wrong")
      [[ -e /run/netns/$namespace ]] || { echo "the pod is gone, and its routes with it" && return; }
      [[ "$(default_route "$namespace") " == "$wrong "* ]] ||
        { echo "the pod's default route has been changed since, or was not changed yet" && return; }
      read -ra words <<<"$line"
      ip -n "$namespace" route replace "${words[@]}"
      ;;
    unplugged)
      namespace=$(<"$1/namespace") interface=$(<"$1/device")
      [[ -e /run/netns/$namespace ]] || { echo "the pod is gone, and its interface with it" && return; }
      ip -n "$namespace" link set "$interface" up
      # From the last to the first, each before the others: two routes may have one destination.
      while read -ra words; do
        [[ -n $(ip -n "$namespace" -4 route show "${words[@]}" dev "$interface") ]] ||
          ip -n "$namespace" route prepend "${words[@]}" dev "$interface"
      done < <(tac "$1/routes")
      ;;
    forward)
      namespace=$(<"$1/namespace") interface=$(<"$1/device")
      [[ -e /run/netns/$namespace ]] || { echo "the pod is gone, and its rules with it" && return; }
      has_forward_rule "$namespace" "$interface" || { echo "the rule is gone, or was not there yet" && return; }
      forward_rule "$namespace" -D "$interface"
      ;;
    mtu)
      namespace=$(<"$1/namespace")
      [[ -e /run/netns/$namespace ]] || { echo "the pod is gone, and its MTU with it" && return; }
      [[ $(mtu_of "$namespace") == "$(<"$1/wrong")" ]] ||
        { echo "the MTU has been changed since, or was not changed yet" && return; }
      ip -n "$namespace" link set eth0 mtu "$(<"$1/mtu")"
      ;;
    neighbour)
      read -ra words <"$1/where"
      [[ $(mac_of "${words[@]}") == "$(<"$1/wrong")" ]] ||
        { echo "the neighbour has been changed since, or was not changed yet" && return; }
      ip neigh replace "${words[0]}" lladdr "$(<"$1/mac")" dev "${words[1]}" nud permanent
      ;;
    nat)
      has_nat_rule "$(<"$1/cidr")" || { echo "the rule is gone, or was not there yet" && return; }
      if by_iptables; then
        nat_rule -D "$(<"$1/cidr")"
      else
        nft delete rule "${nft_chain[@]}" handle "$(nft_rule)"
      fi
      ;;
    forwarding)
      [[ $(<"$ip_forward") == 0 ]] || { echo "the node forwards again, or still" && return; }
      echo 1 >"$ip_forward"
      ;;
    rp_filter)
      changed=''
      while read -r name value; do
        # What has been changed since, or was not changed yet, is left.
        [[ -e $(rp_filter_of "$name") && $(<"$(rp_filter_of "$name")") == 1 ]] || continue
        echo "$value" >"$(rp_filter_of "$name")"
        changed=yes
      done <"$1/values"
      [[ -n $changed ]] || { echo "rp_filter has been changed since, or was not changed yet" && return; }
      ;;
    edited)
      file=$(<"$1/file")
      rm -f -- "$(temporary_of "$file")"
      cmp -s -- "$file" "$1/edited" || { echo "$file has been written again, or was not changed yet" && return; }
      put "$file" "$1/content"
      ;;
    netem)
      interface=$(<"$1/device")
      has_netem "$interface" || { echo "nothing is delayed there any more, or was not yet" && return; }
      tc qdisc del dev "$interface" root
      ;;
    *) fail "$1 is of a kind that this program does not know: $(<"$1/kind")" ;;
  esac
  echo "put back"
}

mend() {
  local name result failed='' status=0
  result=$(mktemp -- "$journal/.XXXXXX")
  for name in $(entries | sort -r); do
    # Not in a condition: there, bash would continue after a command that fails.
    set +e
    (set -e && undo "$journal/$name" >"$result")
    status=$?
    set -e
    if ((status)); then
      printf '%s could not be undone: see above\n' "$name" >&2
      failed=yes
      continue
    fi
    # The entry is gone at once, wherever its removal is cut.
    mv -T -- "$journal/$name" "$journal/.$name"
    rm -rf -- "${journal:?}/.$name"
    printf '%s\t%s\n' "$name" "$(<"$result")"
  done
  rm -f -- "$result"
  [[ -z $failed ]]
}

case $DO in
  break) break_ ;;
  mend) mend ;;
  *) fail "DO must be break or mend, not $DO" ;;
esac
