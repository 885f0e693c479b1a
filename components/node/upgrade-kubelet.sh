# shellcheck shell=bash
# The last part of a node's upgrade: installs kubelet, kubectl and CRI-O in their new versions, restarts them, and
# uncordons the node. Does nothing where they run in these versions already. Comes after packages.sh.

PROGRAMS=(/usr/bin/kubelet /usr/bin/crio)
# The node's own credentials let it read and change its own Node.
export KUBECONFIG=$KUBELET_CONF

runs_and_is_ready() {
  local state
  state=$(kube get node "$NODE_NAME" --output \
    'jsonpath={.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}') || return
  [[ $state == "v$KUBERNETES_VERSION True" ]] || { echo "$state" && kubelet_state && return 1; }
}

# Only if drain.sh cordoned the node.
allow_pods() {
  local ours
  ours=$(kube get node "$NODE_NAME" --ignore-not-found --output 'jsonpath={.metadata.annotations.cni-lab/cordoned}')
  [[ $ours == yes ]] || return 0
  kube uncordon "$NODE_NAME" >&2
  kube annotate node "$NODE_NAME" cni-lab/cordoned- >&2
}

if ! joined; then exit 0; fi
# Also if the versions are right: after an interruption the packages may be half configured.
repair_dpkg
if ! have_versions; then
  # They enter the list before they change, so that an interrupted run cannot lose that they must be restarted.
  for program in "${PROGRAMS[@]}"; do alone add_line "$program" "$CNI_LAB_STATE/changed"; done
  install_packages
fi
hold_packages
disable_sample_network
ask_pause
if changed "${PROGRAMS[@]}"; then
  systemctl daemon-reload
  start_crio
  systemctl restart kubelet
  wait_for 300 "kubelet $KUBERNETES_VERSION on $NODE_NAME, Ready (look at journalctl -u kubelet there)" \
    runs_and_is_ready
  settled "${PROGRAMS[@]}"
  log "$NODE_NAME runs kubelet $KUBERNETES_VERSION and CRI-O $(version_of crio)"
fi
allow_pods
