# shellcheck shell=bash
# Joins this machine to the cluster, as a worker or a further control plane. An interrupted join is undone and done
# again.
: "${NODE_NAME:?}" "${API_ENDPOINT:?}"

CONFIG=/etc/kubernetes/cni-lab/join.yaml
CA=/etc/kubernetes/pki/ca.crt
CERTIFICATE=/var/lib/kubelet/pki/kubelet-client-current.pem
# Exists once kubeadm join has succeeded.
MARK=$CNI_LAB_STATE/joined
LOG=$CNI_LAB_LOGS/kubeadm-join.log

# The configuration contains the token, so it is removed when this script ends, however it ends.
trap 'rm -f -- "$CONFIG"; settled "$CONFIG"' EXIT

# The checksum by which joining nodes recognise the CA: SHA-256 of its public key.
ca_hash() { openssl x509 -in "$CA" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum | cut -d ' ' -f 1; }

has_traces() {
  [[ -e $KUBELET_CONF || -e /etc/kubernetes/bootstrap-kubelet.conf || -e $CA || -e /var/lib/kubelet/config.yaml ]]
}

# Whether this stack's CA signed kubelet's certificate. Without these files, nothing has joined here.
joined_ours() {
  [[ -e $KUBELET_CONF && -e $CA && -e $CERTIFICATE ]] || return 1
  wanted "$CONFIG" | grep -qF -- "sha256:$(ca_hash)" ||
    fail "$NODE_NAME is joined to a cluster whose CA is not this stack's: it is left as it is." \
      "Take it out there (kubeadm reset), or replace the machine, and repeat"
  openssl verify -CAfile "$CA" "$CERTIFICATE" >/dev/null
}

# Whether the join went to its end: a worker's ends when its Node is registered, a control plane's when it has its
# label.
registered() {
  local labels
  labels=$(kube --kubeconfig "$KUBELET_CONF" get node "$NODE_NAME" \
    --output jsonpath='{.metadata.labels}') || { kubelet_state >&2; return 1; }
  [[ $(wanted "$CONFIG") != *$'\n'controlPlane:* || $labels == *'"node-role.kubernetes.io/control-plane"'* ]] ||
    { echo "its Node has no label of a control plane" >&2; return 1; }
}

# One try. It first undoes what an earlier one left. For a while after such a reset our own Node is still Ready, and
# kubeadm refuses to join until it is not.
join() {
  if has_traces; then
    log "an unfinished kubeadm join is undone"
    kubeadm_reset 180 ||
      fail "kubeadm reset did not undo an unfinished join on $NODE_NAME: see $CNI_LAB_LOGS/kubeadm-reset.log there"
  fi
  kubeadm_run "$LOG" join --config "$CONFIG"
}

[[ -s $CNI_LAB_STATE/owner ]] || fail "$NODE_NAME was not prepared for this stack: run the prepare step first"
if joined_ours && { [[ -e $MARK ]] || { systemctl is-active --quiet kubelet && registered; }; }; then
  # kubelet registers its Node only when it starts, and somebody may have deleted the Node since.
  registered || systemctl restart kubelet
  log "$NODE_NAME is joined already"
else
  rm -f -- "$MARK"
  write_files
  log "kubeadm join runs; its output is in $LOG on $NODE_NAME"
  retry 4 join || fail "kubeadm join failed on $NODE_NAME: the last lines are above, all of them in" \
    "$LOG there. Can it reach https://$API_ENDPOINT?"
fi
replace "$MARK" 0644 ''
systemctl is-active --quiet kubelet || systemctl start kubelet
wait_for 120 "the Node $NODE_NAME at https://$API_ENDPOINT (look at journalctl -u kubelet)" registered
if [[ -e $ADMIN_CONF ]]; then
  install -d -m 0700 /root/.kube
  ln -sfnT "$ADMIN_CONF" /root/.kube/config
fi
