# shellcheck shell=bash
# Creates the cluster on its first control plane, with the CA that the stack made. An interrupted init is undone and
# done again. An existing cluster is only checked.
: "${NODE_NAME:?}" "${API_ENDPOINT:?}"

CONFIG=/etc/kubernetes/cni-lab/init.yaml
# Exists once kubeadm init has succeeded.
MARK=$CNI_LAB_STATE/initialised
LOG=$CNI_LAB_LOGS/kubeadm-init.log

kube_admin() { kube --kubeconfig "$ADMIN_CONF" "$@"; }
api_ready() {
  if kube_admin --server "https://$API_ENDPOINT" get --raw /readyz; then return 0; fi
  kubelet_state >&2
  end_back_off
  return 1
}

# Protects a cluster whose mark was lost: if it has more nodes than this one, its init was finished.
has_other_nodes() {
  local nodes
  [[ -e $ADMIN_CONF ]] && nodes=$(kube_admin get nodes --output name) && [[ -n ${nodes//"node/$NODE_NAME"/} ]]
}

has_traces() {
  local trace
  for trace in /etc/kubernetes/{,manifests/}*.{conf,yaml} /var/lib/etcd/member /var/lib/kubelet/config.yaml; do
    if [[ -e $trace ]]; then return 0; fi
  done
  return 1
}

[[ -s $CNI_LAB_STATE/owner ]] || fail "$NODE_NAME was not prepared for this stack: run the prepare step first"
refuse_other_ca
if [[ ! -e $MARK ]] && has_other_nodes; then
  replace "$MARK" 0644 ''
fi
if [[ ! -e $MARK || ! -e $ADMIN_CONF ]]; then
  rm -f -- "$MARK"
  if has_traces; then
    log "an unfinished kubeadm init is undone"
    kubeadm_reset 180 ||
      fail "kubeadm reset did not undo an unfinished init on $NODE_NAME: see $CNI_LAB_LOGS/kubeadm-reset.log there"
  fi
  write_files
  kubeadm config validate --config "$CONFIG" >&2 || fail "kubeadm refuses $CONFIG: see the line above"
  log "kubeadm init runs; its output is in $LOG on $NODE_NAME"
  kubeadm_run "$LOG" init --config "$CONFIG" ||
    fail "kubeadm init failed on $NODE_NAME: the last lines are above, all of them in $LOG there"
  replace "$MARK" 0644 ''
else
  write_files
  systemctl is-active --quiet kubelet || systemctl start kubelet
fi
install -d -m 0700 /root/.kube
ln -sfnT "$ADMIN_CONF" /root/.kube/config
wait_for "$API_TIMEOUT_SECONDS" \
  "the Kubernetes API at https://$API_ENDPOINT (look at crictl ps -a, journalctl -u kubelet on $NODE_NAME)" api_ready
log "the Kubernetes API answers at https://$API_ENDPOINT"
