# shellcheck shell=bash
# Everything of a node that a fault may change, as text that is the same whenever the node is. In parts, so that a test
# that looks often can look at some of them.

parts() {
  printf '%s\n' rules nft fdb neighbours settings files
  local name
  for name in /run/netns/*; do
    [[ ! -e $name ]] || echo "pod ${name##*/}"
  done
}

# The kernel lists chains in the order in which they were made; the rules of one chain stay in their order.
look_rules() { iptables-save | { grep '^-A' || true; } | sort --stable --key 2,2; }

look_nft() {
  if command -v nft >/dev/null; then nft list ruleset 2>/dev/null | { grep -v counter || true; } | sort; fi
}

# In no fixed order. An entry that was not used for some seconds is marked as stale.
look_fdb() { bridge fdb show | sed 's/ *stale *$//; s/ *$//' | sort; }

look_neighbours() { ip neigh show nud permanent | sort; }

look_settings() {
  grep -H . /proc/sys/net/ipv4/conf/*/proxy_arp /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/ip_forward
}

# Of the lab's own directory only the names, without those of the journal itself: the first break makes them, and they
# stay.
look_files() (
  shopt -s nullglob dotglob globstar
  files=(/etc/cni/net.d/* /etc/cni/multus/net.d/*)
  stat -c '%n %a %u:%g %Y' "${files[@]}"
  md5sum "${files[@]}"
  for path in /var/lib/cni-lab/**; do
    [[ $path == */faults || $path == */faults.lock ]] || echo "$path"
  done
)

# The last line is the link's, whose queue may change by itself.
look_pod() {
  local text
  text=$(ip -n "$1" -o -batch - <<<$'route show\nlink show dev eth0')
  echo "${text%% qdisc *}"
}

# look PART…: each with its name.
look() {
  local part
  for part in "$@"; do
    echo "--- $part"
    # shellcheck disable=SC2086 # a pod's name is an argument
    look_$part
  done
}

# look_at_all
look_at_all() {
  local -a all
  mapfile -t all < <(parts)
  look "${all[@]}"
}
