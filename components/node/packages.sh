# shellcheck shell=bash
# A node's packages and its CRI-O: what preparing and upgrading it have in common. Comes before the script that uses it.
: "${NODE_NAME:?}" "${KUBERNETES_VERSION:?}" "${KUBERNETES_MINOR:?}" "${CRIO_VERSION:?}"
: "${KUBERNETES_PACKAGES:?}" "${KUBERNETES_KEY?}" "${CRIO_PACKAGES:?}" "${CRIO_KEY?}"

KUBELET_CONF=/etc/kubernetes/kubelet.conf
MANIFESTS=/etc/kubernetes/manifests
# shellcheck disable=SC2034  # for the scripts that come after
PATCHES=/etc/kubernetes/cni-lab/patches
SOCKET=unix:///var/run/crio/crio.sock
CRIO_SETTINGS=(/etc/crio/crio.conf.d/20-cni-lab.conf /etc/crio/crio.conf.d/30-cni-lab-cgroup.conf)
# A minor alone stands for any of its patches.
if [[ $CRIO_VERSION == *.*.* ]]; then CRIO_PATTERN="$CRIO_VERSION-*"; else CRIO_PATTERN="$CRIO_VERSION.*"; fi

# --- Versions ---------------------------------------------------------------------------------------------------------

# The version that each program reports; empty where it is not there. Word lists, since their texts differ.
version_of() {
  local text
  [[ -n $(command -v "$1") ]] || return 0
  case $1 in
    kubelet | crio | crictl) text=$("$1" --version) ;;
    kubeadm) text=$(kubeadm version --output short) ;;
    kubectl) text=$(kubectl version --client) ;;
  esac
  [[ $text =~ ([0-9]+\.[0-9]+\.[0-9]+[-+.0-9A-Za-z]*) ]] && printf '%s' "${BASH_REMATCH[1]}"
}

have_versions() {
  local program
  for program in kubelet kubeadm kubectl; do
    [[ $(version_of "$program") == "$KUBERNETES_VERSION" ]] || return 1
  done
  [[ $(version_of crio). == "$CRIO_VERSION".* && -n $(version_of crictl) ]]
}

joined() { [[ -e $KUBELET_CONF ]]; }

# newer A B: the version A is later than B.
newer() { [[ $1 != "$2" && $(printf '%s\n' "$1" "$2" | sort --version-sort | tail -n 1) == "$1" ]]; }

# minor_number VERSION: 36 of 1.36.3.
minor_number() { cut -d . -f 2 <<<"$1"; }

# The API server that runs here by its manifest's image; nothing where there is none.
apiserver_version() {
  [[ ! -e $MANIFESTS/kube-apiserver.yaml ]] ||
    sed -nE 's/^ *(- )?image: .*:v([0-9]+\.[0-9]+\.[0-9]+).*/\2/p' "$MANIFESTS/kube-apiserver.yaml"
}

# refuse_jump_from VERSION WHAT: a node in a cluster goes up, and one minor at a time.
refuse_jump_from() {
  local next
  [[ -n $1 ]] || return 0
  if newer "$1" "$KUBERNETES_VERSION"; then
    fail "$2 $1 in a cluster and the stack file says Kubernetes $KUBERNETES_VERSION: a cluster does not go back." \
      "Set kubernetes.version to $1 or a later one, or replace the machines (destroy, then up)"
  fi
  next=$(($(minor_number "$1") + 1))
  (($(minor_number "$KUBERNETES_VERSION") <= next)) ||
    fail "$2 $1 in a cluster and the stack file says Kubernetes $KUBERNETES_VERSION: kubeadm does not skip a minor." \
      "Set kubernetes.version to one of ${1%%.*}.$next, bring that up, and then go on to $KUBERNETES_VERSION"
}

# Before anything is touched.
refuse_jump() {
  if joined; then
    refuse_jump_from "$(version_of kubelet)" "$NODE_NAME runs kubelet"
    refuse_jump_from "$(apiserver_version)" "$NODE_NAME runs kube-apiserver"
  fi
}

# In a cluster kubelet and CRI-O change at the node's turn only: see upgrade-kubelet.sh.
awaits_upgrade() {
  joined && [[ $(version_of kubelet) != "$KUBERNETES_VERSION" || $(version_of crio). != "$CRIO_VERSION".* ]]
}

# A kubeadm upgrade that was cut may have moved a manifest out of the way and the new one not yet in its place: without
# it the API stays away, and with the API every further try. Backups are named by their time.
restore_manifests() {
  local part
  local -a backups
  [[ -e /etc/kubernetes/admin.conf ]] && joined && awaits_upgrade || return 0
  for part in etcd kube-apiserver kube-controller-manager kube-scheduler; do
    [[ ! -e $MANIFESTS/$part.yaml ]] || continue
    mapfile -t backups < <(compgen -G "/etc/kubernetes/tmp/kubeadm-backup-manifests-*/$part.yaml" | sort)
    if ((${#backups[@]})); then
      replace "$MANIFESTS/$part.yaml" 0600 "$(<"${backups[-1]}")"$'\n'
      log "$MANIFESTS/$part.yaml is back: an upgrade was cut while it was being replaced"
    fi
  done
}

# --- apt --------------------------------------------------------------------------------------------------------------

# apt_file PATH MODE <CONTENT: in the manifest of what a step writes by itself.
apt_file() { PHASE=$PHASE-own write_file "$1" "$2"; }

apt_get() {
  NEEDRESTART_SUSPEND=1 apt-get --quiet -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
    -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o Dpkg::Options::=--force-confold "$@" >&2
}

# A list that cannot be refreshed is no reason to stop: what is installed may not need it, and fails if it does.
update_and_install() {
  apt_get update || log "some package lists could not be refreshed (see above); going on with those at hand"
  apt_get install --yes "$@"
}

# What a first boot's own update holds.
apt_idle() { ! lslocks --noheadings --output COMMAND,PID,PATH | grep -E ' /var/lib/(dpkg/lock|apt/lists/lock)'; }

# An apt that was cut in the middle leaves packages half configured, and refuses all work until they are not.
mend_dpkg() {
  wait_for 300 "the end of another apt on $NODE_NAME" apt_idle
  [[ -z $(dpkg --audit) ]] || dpkg --configure -a --force-confold >&2 ||
    fail "dpkg on $NODE_NAME cannot finish what was interrupted: see the lines above"
}

# trust NAME BASE MINOR FINGERPRINT: a repository, once its key is the pinned one and there is no other beside it.
trust() {
  local name=$1 url=$2/v$3/deb/Release.key pin=${4//[[:space:]]/} file=/etc/apt/keyrings/cni-lab-$1.asc
  local temporary found
  [[ $pin =~ ^[0-9A-Fa-f]{40}$ ]] ||
    fail "no fingerprint of the $name repository's key is pinned ('$4'): give its 40 hexadecimal digits"
  if [[ ! -f $file || $(fingerprints "$file") != "${pin^^}" ]]; then
    temporary=$(mktemp)
    retry 5 download "$url" "$temporary" ||
      fail "$url cannot be fetched: open the way to it from $NODE_NAME, or set a mirror of it in the stack file"
    found=$(fingerprints "$temporary")
    [[ $found == "${pin^^}" ]] || fail "$url holds the key ${found:-(none)}, pinned is ${pin^^}: somebody may have" \
      "put another there; if its owner really changed it, pin the new fingerprint in the stack file"
    apt_file "$file" 0644 <"$temporary"
    rm -f -- "$temporary"
  fi
  apt_file "/etc/apt/sources.list.d/cni-lab-$name.list" 0644 <<<"deb [signed-by=$file] ${url%Release.key} /"
}

# fingerprints FILE: those of all primary keys in it, on one line; nothing when gpg finds none.
fingerprints() {
  local home
  home=$(mktemp -d)
  { gpg --batch --no-options --homedir "$home" --show-keys --with-colons -- "$1" || log "$1 is no file of keys"; } |
    awk -F: '$1 == "pub" {primary = 1} $1 == "fpr" && primary {printf "%s%s", gap, $10; gap = " "; primary = 0}'
  rm -rf -- "$home"
}

# The repositories of this minor, and these versions before any other that they have.
use_repositories() {
  local -a tools=()
  local tool
  for tool in curl gpg; do
    [[ -n $(command -v "$tool") ]] || tools+=("$tool")
  done
  if ((${#tools[@]})) || [[ ! -e /etc/ssl/certs/ca-certificates.crt ]]; then
    retry 3 update_and_install --no-install-recommends ca-certificates "${tools[@]}" ||
      fail "ca-certificates ${tools[*]} did not install on $NODE_NAME: see above; can it reach its package mirrors?"
  fi
  trust kubernetes "$KUBERNETES_PACKAGES" "$KUBERNETES_MINOR" "$KUBERNETES_KEY"
  trust cri-o "$CRIO_PACKAGES" "$KUBERNETES_MINOR" "$CRIO_KEY"
  # 1001: also when that is a downgrade.
  apt_file /etc/apt/preferences.d/cni-lab 0644 <<PINS
Package: kubelet kubeadm kubectl
Pin: version $KUBERNETES_VERSION-*
Pin-Priority: 1001

Package: cri-o
Pin: version $CRIO_PATTERN
Pin-Priority: 1001
PINS
}

# install_exactly PACKAGE=VERSION…
install_exactly() {
  use_repositories
  retry 3 update_and_install --allow-downgrades --allow-change-held-packages "$@" ||
    fail "the packages of Kubernetes $KUBERNETES_VERSION and CRI-O $CRIO_VERSION did not install on $NODE_NAME: see" \
      "above; does the repository have these versions, and can this host reach it?"
}

install_kubeadm() { install_exactly "kubeadm=$KUBERNETES_VERSION-*"; }

install_packages() {
  install_exactly "kubelet=$KUBERNETES_VERSION-*" "kubeadm=$KUBERNETES_VERSION-*" "kubectl=$KUBERNETES_VERSION-*" \
    "cri-o=$CRIO_PATTERN" cri-tools kubernetes-cni
  have_versions || fail "$NODE_NAME has kubelet $(version_of kubelet), kubeadm $(version_of kubeadm), kubectl" \
    "$(version_of kubectl), crio $(version_of crio) after installing: remove the copy that comes first in PATH ($PATH)"
}

hold_packages() {
  local -a packages
  mapfile -t packages < <(dpkg-query --show --showformat '${db:Status-Want} ${Package}\n' |
    awk '$1 == "install" && $2 ~ /^(kubelet|kubeadm|kubectl|cri-o)$/ {print $2}')
  ((${#packages[@]} == 0)) || apt-mark hold "${packages[@]}" >&2
}

# --- CRI-O ------------------------------------------------------------------------------------------------------------

# CRI-O's sample network would make the node Ready, and give early pods addresses, before Calico is there.
disable_sample_network() {
  local file
  for file in /etc/cni/net.d/*-crio-bridge.conf /etc/cni/net.d/*-crio-bridge.conflist; do
    [[ -e $file ]] || continue
    if compgen -G '/sys/class/net/cni0/brif/*' >&2; then
      log "$file stays: pods are attached to its bridge cni0"
    else
      mv -fT -- "$file" "$file.disabled"
      log "$file is now $file.disabled"
    fi
  done
}

crio_failed() {
  journalctl --unit crio --boot --no-pager --quiet --output cat --lines 5 >&2 || true
  fail "CRI-O does not start on $NODE_NAME: its last words are above, all of them in journalctl -u crio"
}

crio_answers() { crictl --runtime-endpoint "$SOCKET" --timeout 5s version; }

start_crio() {
  local registries=/etc/containers/registries.conf.d/50-cni-lab.conf
  systemctl is-enabled --quiet crio || systemctl enable crio >&2
  systemctl is-enabled --quiet kubelet || systemctl enable kubelet >&2
  if ! systemctl is-active --quiet crio; then
    if systemctl is-failed --quiet crio; then systemctl reset-failed crio; fi
    systemctl start crio || crio_failed
  elif changed "${CRIO_SETTINGS[@]}" /usr/bin/crio; then
    systemctl restart crio || crio_failed
  elif changed "$registries"; then
    systemctl reload crio || fail "CRI-O refuses its new registries on $NODE_NAME: see journalctl -u crio"
  fi
  wait_for 60 "CRI-O on $NODE_NAME" crio_answers
  settled "${CRIO_SETTINGS[@]}" /usr/bin/crio "$registries"
}
