# shellcheck shell=bash
# Installs calicoctl on a control plane, in Calico's version and configured for this cluster. It is for people: nothing
# in the lab needs it.
# CALICOCTL_BASE: the URL it comes from, without a final slash. CALICOCTL_SHA256: lines "ARCHITECTURE SHA256".
: "${CALICOCTL_BASE:?}" "${CALICOCTL_SHA256:?}"
CALICOCTL=${CNI_LAB_CALICOCTL:-/usr/local/bin/calicoctl}
CONFIG=${CNI_LAB_CALICOCTL_CONFIG:-/etc/calico/calicoctl.cfg}
# A manifest of its own, by which prepare.sh removes the files when the stack file wants no calicoctl any more.
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
  log "$CALICOCTL was there before this lab: it is left as it is"
else
  # Ours from here on, also if the download is interrupted.
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
