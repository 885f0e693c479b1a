# shellcheck shell=bash
# A node's packages and its CRI-O: what preparing and upgrading it have in common.
# CRIO_VERSION: a whole version, or a minor, which stands for any patch release of it. *_PACKAGES: a repository's
# address without /vMINOR/deb. *_KEY: the fingerprint of the key that signs it. PAUSE, if set: write the pause image
# that kubeadm names into CRI-O's settings, because the stack's program does not know it.
: "${NODE_NAME:?}" "${KUBERNETES_VERSION:?}" "${KUBERNETES_MINOR:?}" "${CRIO_VERSION:?}"
: "${KUBERNETES_PACKAGES:?}" "${KUBERNETES_KEY?}" "${CRIO_PACKAGES:?}" "${CRIO_KEY?}"

MANIFESTS=/etc/kubernetes/manifests
# shellcheck disable=SC2034  # for the scripts that come after
PATCHES=/etc/kubernetes/cni-lab/patches
PAUSE_SETTINGS=/etc/crio/crio.conf.d/20-cni-lab-pause.conf
CRIO_SETTINGS=(/etc/crio/crio.conf.d/20-cni-lab.conf "$PAUSE_SETTINGS" /etc/crio/crio.conf.d/30-cni-lab-cgroup.conf)
# As `trust` writes them.
APT_LISTS=(/etc/apt/sources.list.d/cni-lab-{kubernetes,cri-o}.list)
if [[ $CRIO_VERSION == *.*.* ]]; then CRIO_PATTERN="$CRIO_VERSION-*"; else CRIO_PATTERN="$CRIO_VERSION.*"; fi

# --- Versions ---------------------------------------------------------------------------------------------------------

# version_of PROGRAM: the version that it reports, or nothing if it is not installed.
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

# newer A B: version A is later than version B.
newer() { [[ $1 != "$2" && $(printf '%s\n' "$1" "$2" | sort --version-sort | tail -n 1) == "$1" ]]; }

# minor_number VERSION: 36 of 1.36.3.
minor_number() { cut -d . -f 2 <<<"$1"; }

# The version of the API server that runs here, from the image in its manifest. Nothing if there is none.
apiserver_version() {
  [[ ! -e $MANIFESTS/kube-apiserver.yaml ]] ||
    sed -nE 's/^ *(- )?image: .*:v([0-9]+\.[0-9]+\.[0-9]+).*/\2/p' "$MANIFESTS/kube-apiserver.yaml"
}

# refuse_jump_from VERSION WHAT: fail unless a cluster can go from VERSION to the wanted one: not back, and not past a
# minor. WHAT begins the message.
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

# Called before anything is changed.
refuse_jump() {
  if joined; then
    refuse_jump_from "$(version_of kubelet)" "$NODE_NAME runs kubelet"
    refuse_jump_from "$(apiserver_version)" "$NODE_NAME runs kube-apiserver"
  fi
}

# In a cluster, kubelet and CRI-O change only when it is the node's turn: see upgrade-kubelet.sh.
awaits_upgrade() {
  joined && [[ $(version_of kubelet) != "$KUBERNETES_VERSION" || $(version_of crio). != "$CRIO_VERSION".* ]]
}

# An interrupted kubeadm upgrade may have moved a manifest away before the new one was in its place. Then the component
# does not run, and without it no further attempt can succeed. The names of the backup folders end with their time.
restore_manifests() {
  local part
  local -a backups
  [[ -e $ADMIN_CONF ]] && joined && awaits_upgrade || return 0
  for part in etcd kube-apiserver kube-controller-manager kube-scheduler; do
    [[ ! -e $MANIFESTS/$part.yaml ]] || continue
    mapfile -t backups < <(compgen -G "/etc/kubernetes/tmp/kubeadm-backup-manifests-*/$part.yaml" | sort)
    if ((${#backups[@]})); then
      replace "$MANIFESTS/$part.yaml" 0600 "$(<"${backups[-1]}")"$'\n'
      log "$MANIFESTS/$part.yaml is back: an upgrade was interrupted while it was being replaced"
    fi
  done
}

# --- apt --------------------------------------------------------------------------------------------------------------

# apt_file PATH MODE <CONTENT: write a file that belongs to the manifest of what a script writes by itself.
apt_file() { PHASE=$PHASE-own write_file "$1" "$2"; }

apt_get() {
  NEEDRESTART_SUSPEND=1 apt-get --quiet -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
    -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o Dpkg::Options::=--force-confold "$@" >&2
}

# Goes on when a package list cannot be refreshed: the packages may not need that list, and if they do, apt fails.
update_and_install() {
  apt_get update || log "some package lists could not be refreshed (see above); going on with the old ones"
  apt_get install --yes "$@"
}

# Nobody holds apt's locks. On a new machine the first boot's own update does.
apt_idle() { ! lslocks --noheadings --output COMMAND,PID,PATH | grep -E ' /var/lib/(dpkg/lock|apt/lists/lock)'; }

# An interrupted apt leaves packages that are unpacked by half or not configured, and does nothing else until they are.
repair_dpkg() {
  local -a half
  wait_for 300 "the end of another apt on $NODE_NAME" apt_idle
  [[ -n $(dpkg --audit) ]] || return 0
  mapfile -t half < <(dpkg-query --show --showformat '${db:Status-Eflag} ${Package}\n' | sed -n 's/^reinstreq //p')
  if ((${#half[@]})); then
    log "${half[*]}: unpacked by half when apt was interrupted, and unpacked again now"
    # apt refuses to begin before dpkg has ended what it can. The rest is configured below.
    dpkg --configure -a --force-confold >&2 || true
    apt_get install --yes --reinstall --allow-downgrades --allow-change-held-packages "${half[@]}" ||
      fail "${half[*]} on $NODE_NAME: unpacked by half, and apt cannot install it again: see the lines above"
  fi
  dpkg --configure -a --force-confold >&2 ||
    fail "dpkg on $NODE_NAME cannot finish what was interrupted: see the lines above"
}

# trust NAME BASE MINOR FINGERPRINT: add a repository to apt, if its file of keys holds the pinned key and no other.
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
      "replaced it; if its owner really changed it, pin the new fingerprint in the stack file"
    apt_file "$file" 0644 <"$temporary"
    rm -f -- "$temporary"
  fi
  apt_file "/etc/apt/sources.list.d/cni-lab-$name.list" 0644 <<<"deb [signed-by=$file] ${url%Release.key} /"
}

# fingerprints FILE: the fingerprints of all primary keys in FILE, on one line. Nothing when gpg finds none.
fingerprints() {
  local home
  home=$(mktemp -d)
  { gpg --batch --no-options --homedir "$home" --show-keys --with-colons -- "$1" || log "$1 is not a file of keys"; } |
    awk -F: '$1 == "pub" {primary = 1} $1 == "fpr" && primary {printf "%s%s", gap, $10; gap = " "; primary = 0}'
  rm -rf -- "$home"
}

# Add the repositories of this minor, and prefer the wanted versions to all others there.
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
  # Above 1000, apt takes the version even if that is a downgrade.
  apt_file /etc/apt/preferences.d/cni-lab 0644 <<PINS
Package: kubelet kubeadm kubectl
Pin: version $KUBERNETES_VERSION-*
Pin-Priority: 1001

Package: cri-o
Pin: version $CRIO_PATTERN
Pin-Priority: 1001
PINS
}

# Refreshes the lists of these two repositories and keeps all others as they are.
update_own_lists() {
  local list
  for list in "${APT_LISTS[@]}"; do
    apt_get update -o "Dir::Etc::SourceList=$list" -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=false || return
  done
}

# install_exactly PACKAGE=VERSION…
install_exactly() {
  local -a options=(--allow-downgrades --allow-change-held-packages)
  use_repositories
  # On a node of a cluster, what the packages depend on is usually installed. The distribution's lists are large, and in
  # a closed network apt waits minutes for a name server that does not answer.
  if joined && update_own_lists && apt_get install --yes "${options[@]}" "$@"; then return; fi
  retry 3 update_and_install "${options[@]}" "$@" ||
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

# Before Calico is there, CRI-O's sample network would make the node Ready and give pods addresses.
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

# ask_pause: set the pause image that the installed kubeadm names. CRI-O's default may be another one.
ask_pause() {
  local images image
  [[ -n ${PAUSE:-} ]] || return 0
  images=$(timeout 60 kubeadm config images list --kubernetes-version "v$(version_of kubeadm)") ||
    fail "kubeadm config images list fails on $NODE_NAME: see the line above"
  image=$(grep -E '/pause:[A-Za-z0-9._-]+$' <<<"$images") ||
    fail "kubeadm $(version_of kubeadm) on $NODE_NAME names no pause image: write a version of Kubernetes that is known"
  apt_file "$PAUSE_SETTINGS" 0644 <<<"[crio.image]"$'\n'"pause_image = \"$image\""
}

crio_failed() {
  journalctl --unit crio --boot --no-pager --quiet --output cat --lines 5 >&2 || true
  fail "CRI-O does not start on $NODE_NAME: its last words are above, all of them in journalctl -u crio"
}

crio_answers() { cri --timeout 5s version; }

# CRI-O of another minor removes every pod of the node when it starts (version_file in crio.conf(5)). It takes a pod out
# of its network only while the API answers, and on a control plane the API is one of the pods. A pod that it cannot
# take out stays without its files, and kubelet tries for ever to start containers in it. So the pods that have a
# network are removed before, while the API still runs. kubelet, which makes them again, is stopped; the caller starts
# it.
remove_networked_pods() {
  local running pod network
  running=$(cri version | sed -n 's/^RuntimeVersion: *//p') || return 0
  [[ -n $running && $(minor_number "$running") != "$(minor_number "$(version_of crio)")" ]] || return 0
  log "CRI-O $running becomes $(version_of crio), which starts every pod of $NODE_NAME anew"
  systemctl stop kubelet
  for pod in $(cri pods --quiet); do
    network=$(cri inspectp --output go-template --template '{{.status.linux.namespaces.options.network}}' "$pod") ||
      continue
    [[ $network == POD ]] || continue
    cri --timeout 60s rmp --force "$pod" >&2 || log "the pod $pod is left to CRI-O: see the line above"
  done
}

start_crio() {
  local registries=/etc/containers/registries.conf.d/50-cni-lab.conf
  systemctl is-enabled --quiet crio || systemctl enable crio >&2
  systemctl is-enabled --quiet kubelet || systemctl enable kubelet >&2
  if ! systemctl is-active --quiet crio; then
    if systemctl is-failed --quiet crio; then systemctl reset-failed crio; fi
    systemctl start crio || crio_failed
  elif changed "${CRIO_SETTINGS[@]}" /usr/bin/crio; then
    remove_networked_pods
    systemctl restart crio || crio_failed
  elif changed "$registries"; then
    systemctl reload crio || fail "CRI-O refuses its new registries on $NODE_NAME: see journalctl -u crio"
  fi
  wait_for 60 "CRI-O on $NODE_NAME" crio_answers
  settled "${CRIO_SETTINGS[@]}" /usr/bin/crio "$registries"
}
