# shellcheck shell=bash
# Makes the cluster on its first control plane, with the CA that the stack made. A run that was cut is taken back and
# made again; a finished cluster is only checked.
: "${NODE_NAME:?}" "${API_ENDPOINT:?}"

SOCKET=unix:///var/run/crio/crio.sock
CONFIG=/etc/kubernetes/cni-lab/init.yaml
ADMIN=/etc/kubernetes/admin.conf
MARK=$CNI_LAB_STATE/initialised
LOGS=/var/log/cni-lab

kubectl_admin() { kubectl --kubeconfig "$ADMIN" --request-timeout 10s "$@"; }
api_ready() { kubectl_admin --server "https://$API_ENDPOINT" get --raw /readyz; }

# A mark that was lost: a cluster with more nodes than this one is finished, and nobody's to reset.
has_other_nodes() {
  local nodes
  [[ -e $ADMIN ]] && nodes=$(kubectl_admin get nodes --output name) && [[ -n ${nodes//"node/$NODE_NAME"/} ]]
}

has_traces() {
  local trace
  for trace in /etc/kubernetes/{,manifests/}*.{conf,yaml} /var/lib/etcd/member /var/lib/kubelet/config.yaml; do
    if [[ -e $trace ]]; then return 0; fi
  done
  return 1
}

take_back() {
  log "an unfinished kubeadm init is taken back"
  logged "$LOGS/kubeadm-reset.log" timeout --kill-after=10 180 kubeadm reset --force --cri-socket "$SOCKET" ||
    fail "kubeadm reset did not take back an unfinished init on $NODE_NAME: see $LOGS/kubeadm-reset.log there"
  # kubeadm leaves etcd's data when its manifest was not written yet.
  rm -rf -- /var/lib/etcd/member
}

[[ -s $CNI_LAB_STATE/owner ]] || fail "$NODE_NAME was not prepared for this stack: run the prepare step first"
refuse_other_ca
if [[ ! -e $MARK ]] && has_other_nodes; then
  replace "$MARK" 0644 ''
fi
if [[ ! -e $MARK || ! -e $ADMIN ]]; then
  rm -f -- "$MARK"
  if has_traces; then take_back; fi
  write_files
  kubeadm config validate --config "$CONFIG" >&2 || fail "kubeadm refuses $CONFIG: see the line above"
  log "kubeadm init runs; its output is in $LOGS/kubeadm-init.log on $NODE_NAME"
  kubeadm_run "$LOGS/kubeadm-init.log" init --config "$CONFIG" ||
    fail "kubeadm init failed on $NODE_NAME: the last lines are above, all of them in $LOGS/kubeadm-init.log there"
  replace "$MARK" 0644 ''
else
  write_files
  systemctl is-active --quiet kubelet || systemctl start kubelet
fi
install -d -m 0700 /root/.kube
ln -sfnT "$ADMIN" /root/.kube/config
wait_for 180 "the Kubernetes API at https://$API_ENDPOINT (look at crictl ps -a, journalctl -u kubelet on $NODE_NAME)" \
  api_ready
log "the Kubernetes API answers at https://$API_ENDPOINT"
