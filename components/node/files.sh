# shellcheck shell=bash
# Writes the delegates and Multus' own configuration, and waits until CRI-O uses Multus as its default network.
# DEFAULT_NETWORK: the name inside 00-multus.conf. PLUGINS: the CNI plugins that the lab's networks need.
# TIMEOUT_SECONDS: how long to wait for each thing that Calico, Multus or CRI-O does.
: "${DEFAULT_NETWORK:?}" "${PLUGINS:?}" "${TIMEOUT_SECONDS:?}"
read -ra plugins <<<"$PLUGINS"
BINARIES=${CNI_LAB_CNI_BIN:-/opt/cni/bin}

# origin PLUGIN: where it comes from, and therefore where to look.
origin() {
  case $1 in
    multus) echo "its DaemonSet installs it; look: kubectl -n kube-system get pods -l app=multus -o wide" ;;
    calico | calico-ipam) echo "calico-node installs it; look: kubectl get pods -A -o wide | grep calico-node" ;;
    whereabouts) echo "its DaemonSet installs it; look: kubectl -n kube-system get pods -l app=whereabouts -o wide" ;;
    bandwidth | bridge | dhcp | dummy | firewall | host-device | host-local | ipvlan | loopback | macvlan | portmap | \
      ptp | sbr | static | tap | tuning | vlan | vrf)
      echo "the package kubernetes-cni contains it: apt-get install --reinstall kubernetes-cni"
      ;;
    *) echo "a network of the stack file names it: install it on every node and repeat, or correct the name" ;;
  esac
}

has_plugin() { [[ -x $BINARIES/$1 ]] || { echo "$BINARIES/$1 is not there yet" && return 1; }; }
has_file() { [[ -s $1 ]] || { echo "$1 is not there yet" && return 1; }; }

for plugin in "${plugins[@]}"; do
  (wait_for "$TIMEOUT_SECONDS" "CNI plugin $plugin" with_reasons reasons_here has_plugin "$plugin") ||
    fail "$BINARIES/$plugin is missing on $(hostname): $(origin "$plugin")"
done
for file in /etc/cni/net.d/calico-kubeconfig /var/lib/calico/nodename; do
  (wait_for "$TIMEOUT_SECONDS" "$file" with_reasons reasons_here has_file "$file") ||
    fail "$file is missing: calico-node writes it; look: kubectl get pods -A -o wide | grep calico-node"
done

# The present end of CRI-O's journal: what CRI-O logged before is about the old files.
cursor=$(mktemp)
trap 'rm -f -- "$cursor"' EXIT
# journalctl ends with status 1 when there is no entry, which is no error here.
crio_journal() { journalctl --quiet --no-pager --output cat --boot --unit crio "$@" || (($? == 1)); }
crio_journal --lines 1 --show-cursor | sed -n 's/^-- cursor: //p' >"$cursor"
since() {
  local at
  at=$(<"$cursor")
  crio_journal ${at:+--after-cursor "$at"}
}

# A node is Ready as soon as Calico's own file is there, so on an added or replaced machine pods can start before Multus
# serves them. They then have Calico's network alone. The mark outlives a run that is cut.
early=$CNI_LAB_STATE/pods-before-multus
mkdir -p "${early%/*}"
[[ -e /etc/cni/net.d/00-multus.conf ]] || : >"$early"

write_files

# CRI-O reads this directory again at every change, and logs its default network. Where write_files changed nothing,
# this file is the change.
nudge=/etc/cni/net.d/.cni-lab.nudge
: >"$nudge"
rm -f -- "$nudge"

in_use() {
  local last
  last=$(since | { grep -F 'Updated default CNI network name to' || true; } | tail -n 1)
  last=${last##*Updated default CNI network name to }
  last=${last%%\"*}
  [[ $last == "$DEFAULT_NETWORK" ]] || { echo "CRI-O's default network is ${last:-not logged yet}" && return 1; }
}

(wait_for "$TIMEOUT_SECONDS" "CRI-O to use $DEFAULT_NETWORK as its default network" in_use) || {
  since | { grep -E 'Error (validating|loading|parsing) CNI config|Ignored CNI network|Error reading' || true; } |
    tail -n 5 >&2
  fail "CRI-O does not use /etc/cni/net.d/00-multus.conf: the lines above, if any, name the file it skipped and why." \
    "Look: journalctl -u crio | grep CNI; ls /etc/cni/net.d (a file that sorts before 00-multus.conf wins)"
}

# reattach_pods: stop the sandboxes of such pods; kubelet makes them again, through Multus. Pods of the cluster itself
# need no other network.
reattach_pods() {
  local id ids namespace network name
  ids=$(cri pods --quiet --state Ready)
  for id in $ids; do
    # One that has ended meanwhile gives no line.
    read -r namespace network name < <(cri inspectp --output go-template --template \
      '{{.status.metadata.namespace}} {{.status.linux.namespaces.options.network}} {{.status.metadata.name}}' "$id") ||
      continue
    case $namespace in kube-system | calico-system | calico-apiserver | tigera-operator) continue ;; esac
    [[ $network == POD ]] || continue
    log "pod $namespace/$name started before Multus: it starts again"
    cri --timeout 60s stopp "$id" >&2
  done
}
if [[ -e $early ]]; then
  reattach_pods
  rm -f -- "$early"
fi
