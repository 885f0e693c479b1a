# shellcheck shell=bash
# The last part of a node's upgrade: kubelet, kubectl and CRI-O at their new versions, restarted, and pods allowed
# again. Nothing to do where they are so and run.

PROGRAMS=(/usr/bin/kubelet /usr/bin/crio)

# The node's own credentials let it read and change its own Node.
kube() { kubectl --kubeconfig "$KUBELET_CONF" --request-timeout 10s "$@"; }

runs_and_is_ready() {
  local state
  state=$(kube get node "$NODE_NAME" --output \
    'jsonpath={.status.nodeInfo.kubeletVersion} {.status.conditions[?(@.type=="Ready")].status}') || return
  [[ $state == "v$KUBERNETES_VERSION True" ]] || { echo "$state" && return 1; }
}

# Only where drain.sh cordoned it.
allow_pods() {
  local ours
  ours=$(kube get node "$NODE_NAME" --ignore-not-found --output 'jsonpath={.metadata.annotations.cni-lab/cordoned}')
  [[ $ours == yes ]] || return 0
  kube uncordon "$NODE_NAME" >&2
  kube annotate node "$NODE_NAME" cni-lab/cordoned- >&2
}

if ! joined; then exit 0; fi
# Also where the versions are there: a cut may have left them half configured.
mend_dpkg
if ! have_versions; then
  # In the list before they change, so that a run which is cut cannot forget to restart them.
  for program in "${PROGRAMS[@]}"; do alone add_line "$program" "$CNI_LAB_STATE/changed"; done
  install_packages
fi
hold_packages
disable_sample_network
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
