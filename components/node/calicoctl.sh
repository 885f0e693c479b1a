# shellcheck shell=bash
# Install calicoctl on a control plane, at Calico's version, told where its cluster is. The lab itself needs it nowhere.
# CALICOCTL_BASE: address it is fetched from, without the final slash. CALICOCTL_SHA256: lines "ARCHITECTURE SHA256".
: "${CALICOCTL_BASE:?}" "${CALICOCTL_SHA256:?}"
CALICOCTL=${CNI_LAB_CALICOCTL:-/usr/local/bin/calicoctl}
CONFIG=${CNI_LAB_CALICOCTL_CONFIG:-/etc/calico/calicoctl.cfg}
# A manifest of its own: prepare.sh takes the files back once the stack file wants no calicoctl any more.
PHASE=calicoctl

architecture=$(dpkg --print-architecture)
sum=
while read -r known other; do
  if [[ $known == "$architecture" ]]; then sum=$other; fi
done <<<"${CALICOCTL_SHA256%$'\n'}"

if [[ -z $sum ]]; then
  log "calicoctl is not installed: mirrors.calicoctlSha256 has no checksum for $architecture"
  keep_files "$PHASE"
elif [[ -e $CALICOCTL ]] && ! in_list "$CALICOCTL" "$CNI_LAB_STATE/files/$PHASE"; then
  log "$CALICOCTL was there before this lab: left as it is"
else
  # Ours from here on, wherever the download is cut.
  add_line "$CALICOCTL" "$CNI_LAB_STATE/files/$PHASE"
  fetch "$CALICOCTL_BASE/calicoctl-linux-$architecture" "$sum" "$CALICOCTL"
  chmod 0755 -- "$CALICOCTL"
  write_file "$CONFIG" 0644 <<'CONFIG'
apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
spec:
  datastoreType: kubernetes
  kubeconfig: /etc/kubernetes/admin.conf
CONFIG
  settled "$CONFIG"
fi
