#!/usr/bin/env bash
# In fresh namespaces: try what a sandbox does, and print what the kernel lacks.
#
#   probe.sh TOOL KIND…
#
# TOOL: iptables or nft, by which kube-proxy's rules would be made ("services"); empty: none are. KIND: of a link.
set -euo pipefail
tool=$1
shift
mount -t tmpfs tmpfs /tmp
mkdir /tmp/sys
mount -t sysfs sysfs /tmp/sys
ip link add probe0 type veth
for kind in "$@"; do
  words=(name probe1 type "$kind")
  case $kind in
    macvlan | ipvlan) words=(link probe0 "${words[@]}") ;;
    vxlan) words+=(id 1 dstport 4789) ;;
    # Without addresses it would be tunl0, which the module itself makes in every namespace.
    ipip) words+=(local 127.0.0.1 remote 127.0.0.2) ;;
  esac
  if ip link add "${words[@]}" 2>/tmp/error; then
    ip link delete probe1
  else
    echo "$kind"
  fi
done

# One rule of each kind that kube-proxy writes.
iptables_services() {
  iptables-restore --noflush <<'RULES'
*nat
:KUBE-PROBE - [0:0]
-A KUBE-PROBE -m comment --comment probe -m statistic --mode random --probability 0.5 -j RETURN
-A KUBE-PROBE -j MARK --set-xmark 0x4000/0x4000
-A KUBE-PROBE -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.1:80
COMMIT
*filter
-A FORWARD -m conntrack --ctstate NEW -m mark --mark 0x4000/0x4000 -j REJECT
COMMIT
RULES
}
nft_services() {
  nft -f - <<'RULES'
table ip probe {
  map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 192.0.2.2 . tcp . 80 : goto one }; }
  chain two {
    meta mark set meta mark | 0x4000
    meta l4proto tcp dnat to 192.0.2.1:80
  }
  chain one {
    numgen random mod 1 vmap { 0 : goto two }
  }
  chain probed {
    type nat hook prerouting priority dstnat
    ip daddr . meta l4proto . th dport vmap @services
  }
}
RULES
}
case $tool in
  iptables) iptables_services 2>/tmp/error || echo services ;;
  nft) nft_services 2>/tmp/error || echo services ;;
esac
