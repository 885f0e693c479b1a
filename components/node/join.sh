# shellcheck shell=bash
# Joins this machine to the cluster, as worker or further control plane. A join that was cut is taken back and made
# again.
: "${NODE_NAME:?}" "${API_ENDPOINT:?}"

SOCKET=unix:///var/run/crio/crio.sock
CONFIG=/etc/kubernetes/cni-lab/join.yaml
CA=/etc/kubernetes/pki/ca.crt
KUBELET=/etc/kubernetes/kubelet.conf
CERTIFICATE=/var/lib/kubelet/pki/kubelet-client-current.pem
MARK=$CNI_LAB_STATE/joined
LOGS=/var/log/cni-lab

# The configuration holds the token: it goes when this script ends, however it ends.
trap 'rm -f -- "$CONFIG"; settled "$CONFIG"' EXIT

# The pin that joiners know the CA by: SHA-256 of its public key.
ca_hash() { openssl x509 -in "$CA" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum | cut -d ' ' -f 1; }

has_traces() {
  [[ -e $KUBELET || -e /etc/kubernetes/bootstrap-kubelet.conf || -e $CA || -e /var/lib/kubelet/config.yaml ]]
}

# This cluster's CA signed what kubelet shows it. Where there is no such pair of files, nothing was joined.
joined_ours() {
  [[ -e $KUBELET && -e $CA && -e $CERTIFICATE ]] || return 1
  wanted "$CONFIG" | grep -qF -- "sha256:$(ca_hash)" ||
    fail "$NODE_NAME is joined to a cluster whose CA is not this stack's: it is left as it is." \
      "Take it out there (kubeadm reset), or replace the machine, and repeat"
  openssl verify -CAfile "$CA" "$CERTIFICATE" >/dev/null
}

# The last thing that a worker's join does is to register its Node, a control plane's to label it.
registered() {
  local labels
  labels=$(kubectl --kubeconfig "$KUBELET" --request-timeout 10s get node "$NODE_NAME" \
    --output jsonpath='{.metadata.labels}') || return 1
  [[ $(wanted "$CONFIG") != *$'\n'controlPlane:* || $labels == *'"node-role.kubernetes.io/control-plane"'* ]]
}

take_back() {
  log "an unfinished kubeadm join is taken back"
  logged "$LOGS/kubeadm-reset.log" timeout --kill-after=10 180 kubeadm reset --force --cri-socket "$SOCKET" ||
    fail "kubeadm reset did not take back an unfinished join on $NODE_NAME: see $LOGS/kubeadm-reset.log there"
  rm -rf -- /var/lib/etcd/member
}

# One try; what an earlier one left is taken back first. Our own Node is Ready for a while after such a reset, and
# kubeadm refuses to join while it is.
join() {
  if has_traces; then take_back; fi
  kubeadm_run "$LOGS/kubeadm-join.log" join --config "$CONFIG"
}

[[ -s $CNI_LAB_STATE/owner ]] || fail "$NODE_NAME was not prepared for this stack: run the prepare step first"
if joined_ours && { [[ -e $MARK ]] || { systemctl is-active --quiet kubelet && registered; }; }; then
  # kubelet registers its Node when it starts; somebody may have deleted that since.
  registered || systemctl restart kubelet
  log "$NODE_NAME is joined already"
else
  rm -f -- "$MARK"
  write_files
  log "kubeadm join runs; its output is in $LOGS/kubeadm-join.log on $NODE_NAME"
  retry 4 join || fail "kubeadm join failed on $NODE_NAME: the last lines are above, all of them in" \
    "$LOGS/kubeadm-join.log there. Can it reach https://$API_ENDPOINT?"
fi
replace "$MARK" 0644 ''
systemctl is-active --quiet kubelet || systemctl start kubelet
wait_for 120 "the Node $NODE_NAME at https://$API_ENDPOINT (look at journalctl -u kubelet)" registered
if [[ -e /etc/kubernetes/admin.conf ]]; then
  install -d -m 0700 /root/.kube
  ln -sfnT /etc/kubernetes/admin.conf /root/.kube/config
fi
