# shellcheck shell=bash
# Write the delegates and Multus' own configuration, and see that CRI-O takes Multus for its default network.
# DEFAULT_NETWORK: inner name of 00-multus.conf. PLUGINS: executables the lab's networks need. PATIENCE: seconds to wait
# for each thing that Calico, Multus or CRI-O brings about.
: "${DEFAULT_NETWORK:?}" "${PLUGINS:?}" "${PATIENCE:?}"
read -ra plugins <<<"$PLUGINS"
BINARIES=${CNI_LAB_CNI_BIN:-/opt/cni/bin}

# origin PLUGIN: where it comes from, and so where to look.
origin() {
  case $1 in
    multus) echo "its DaemonSet brings it; look: kubectl -n kube-system get pods -l app=multus -o wide" ;;
    calico | calico-ipam) echo "calico-node brings it; look: kubectl get pods -A -o wide | grep calico-node" ;;
    whereabouts)
      echo "the lab does not bring it: install whereabouts on every node (its own DaemonSet, k8snetworkplumbingwg/" \
        "whereabouts) and repeat, or give the network in the stack file another ipam, e.g. {type: host-local}"
      ;;
    bandwidth | bridge | dhcp | dummy | firewall | host-device | host-local | ipvlan | loopback | macvlan | portmap | \
      ptp | sbr | static | tap | tuning | vlan | vrf)
      echo "the package kubernetes-cni brings it: apt-get install --reinstall kubernetes-cni"
      ;;
    *) echo "a network of the stack file names it: install it on every node and repeat, or correct the name" ;;
  esac
}

for plugin in "${plugins[@]}"; do
  (wait_for "$PATIENCE" "CNI plugin $plugin" test -x "$BINARIES/$plugin") ||
    fail "$BINARIES/$plugin is missing on $(hostname): $(origin "$plugin")"
done
for file in /etc/cni/net.d/calico-kubeconfig /var/lib/calico/nodename; do
  (wait_for "$PATIENCE" "$file" test -s "$file") ||
    fail "$file is missing: calico-node writes it; look: kubectl get pods -A -o wide | grep calico-node"
done

# Where CRI-O's journal stands now: what it said before is about the files as they were.
cursor=$(mktemp)
trap 'rm -f -- "$cursor"' EXIT
# Status 1 says that there is no entry, which is no error.
crio_journal() { journalctl --quiet --no-pager --output cat --boot --unit crio "$@" || (($? == 1)); }
crio_journal --lines 1 --show-cursor | sed -n 's/^-- cursor: //p' >"$cursor"
since() {
  local at
  at=$(<"$cursor")
  crio_journal ${at:+--after-cursor "$at"}
}

write_files

# CRI-O looks again, and says so, at every change in this directory; without one it may have said it long ago.
nudge=/etc/cni/net.d/.cni-lab.nudge
: >"$nudge"
rm -f -- "$nudge"

taken_up() {
  local last
  last=$(since | { grep -F 'Updated default CNI network name to' || true; } | tail -n 1)
  last=${last##*Updated default CNI network name to }
  last=${last%%\"*}
  [[ $last == "$DEFAULT_NETWORK" ]] || { echo "CRI-O's default network is ${last:-not said}" && return 1; }
}

(wait_for "$PATIENCE" "CRI-O to take $DEFAULT_NETWORK for its default network" taken_up) || {
  since | { grep -E 'Error (validating|loading|parsing) CNI config|Ignored CNI network|Error reading' || true; } |
    tail -n 5 >&2
  fail "CRI-O does not use /etc/cni/net.d/00-multus.conf: the lines above, if any, name the file it skipped and why." \
    "Look: journalctl -u crio | grep CNI; ls /etc/cni/net.d (a file that sorts before 00-multus.conf wins)"
}
