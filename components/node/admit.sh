# shellcheck shell=bash
# Runs on the first control plane, for one machine that is about to join. Removes a stale Node of its name, and makes
# sure that its bootstrap token and, for a control plane, the uploaded certificates exist and are valid for long enough.
: "${JOINER:?}" "${JOINER_ROLE:?}" "${JOINER_MACHINE:?}" "${BOOTSTRAP_TOKEN:?}" "${CERTIFICATE_KEY?}"

export KUBECONFIG=$ADMIN_CONF
# What expires sooner is renewed: the join must finish before.
NEEDED_SECONDS=$((30 * 60))

# secret NAME TEMPLATE: a field of a Secret in kube-system. Nothing if it is missing.
secret() { kube --namespace kube-system get secret "$1" --ignore-not-found --output "go-template=$2"; }

# expiration NAME: when the bootstrap token of that Secret expires.
expiration() { secret "$1" '{{with .data.expiration}}{{. | base64decode}}{{end}}'; }

# lasts TIME: whether that RFC 3339 time is far enough away.
lasts() { [[ -n $1 ]] && (($(date -d "$1" +%s) - $(date +%s) >= NEEDED_SECONDS)); }

# A Node of that name may be of another machine, which was there before. If it is of this machine, it stays.
clear_stale_node() {
  local machine
  machine=$(kube get node "$JOINER" --ignore-not-found \
    --output 'go-template=found {{with .metadata.labels}}{{with index . "cni-lab/machine"}}{{.}}{{end}}{{end}}')
  if [[ -n $machine && $machine != "found $JOINER_MACHINE" ]]; then
    log "the Node $JOINER is of another machine (${machine#found }): it is removed"
    /usr/local/lib/cni-lab/remove-node.sh --no-drain "$JOINER"
  fi
}

# The token goes through stdin, because a command line shows in the process list.
renew_token() {
  local id=${BOOTSTRAP_TOKEN%%.*}
  [[ $BOOTSTRAP_TOKEN =~ ^[a-z0-9]{6}\.[a-z0-9]{16}$ ]] ||
    fail "the bootstrap token does not have the form [a-z0-9]{6}.[a-z0-9]{16}: correct it in the stack"
  if lasts "$(expiration "bootstrap-token-$id")"; then return 0; fi
  kube apply --server-side --force-conflicts --field-manager cni-lab --filename - >&2 <<SECRET
apiVersion: v1
kind: Secret
metadata:
  name: bootstrap-token-$id
  namespace: kube-system
type: bootstrap.kubernetes.io/token
stringData:
  description: joins of cni-lab nodes
  token-id: "$id"
  token-secret: "${BOOTSTRAP_TOKEN#*.}"
  expiration: "$(date -u -d '+1 hour' +%FT%TZ)"
  usage-bootstrap-authentication: "true"
  usage-bootstrap-signing: "true"
  auth-extra-groups: system:bootstrappers:kubeadm:default-node-token
SECRET
}

# The certificates are in a Secret that lives as long as the token which owns it. Our annotation has a checksum of the
# key that they are encrypted with.
upload_certificates() {
  local sum owner config
  # Control planes are admitted in parallel, and one upload serves all of them.
  exec 8<>/run/lock/cni-lab-certificates
  wait_for 240 "the end of another upload of certificates, which has /run/lock/cni-lab-certificates" flock --nonblock 8
  sum=$(printf '%s' "$CERTIFICATE_KEY" | sha256sum | cut -c 1-16)
  if [[ $(secret kubeadm-certs '{{with .metadata.annotations}}{{index . "cni-lab/key"}}{{end}}') == "$sum" ]]; then
    owner=$(secret kubeadm-certs '{{with .metadata.ownerReferences}}{{(index . 0).name}}{{end}}')
    if [[ -n $owner ]] && lasts "$(expiration "$owner")"; then return 0; fi
  fi
  config=$(mktemp --tmpdir=/run cni-lab.XXXXXX)
  # shellcheck disable=SC2064  # the variable is local, so its value goes into the trap now
  trap "rm -f -- '$config'" EXIT
  cat >"$config" <<CONFIG
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
certificateKey: $CERTIFICATE_KEY
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $(kubeadm version --output short)
CONFIG
  logged "$CNI_LAB_LOGS/kubeadm-upload-certs.log" kubeadm init phase upload-certs --upload-certs --config "$config" ||
    fail "the control plane's certificates could not be uploaded for $JOINER: see the lines above"
  kube --namespace kube-system annotate --overwrite secret kubeadm-certs "cni-lab/key=$sum" >&2
}

clear_stale_node
renew_token
if [[ $JOINER_ROLE == control-plane ]]; then
  [[ -n $CERTIFICATE_KEY ]] ||
    fail "no certificate key for the control plane $JOINER: the stack makes one if it has several"
  upload_certificates
fi
log "$JOINER may join"
