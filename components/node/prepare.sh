# shellcheck shell=bash
# From a bare Debian or Ubuntu machine to one on which kubeadm can work: kernel, packages, CRI-O. Prints what it found.
: "${OWNER:?}" "${NODE_NAME:?}" "${NODE_ADDRESS:?}" "${MACHINE_KIND:?}" "${MODULES:?}"
: "${KUBERNETES_VERSION:?}" "${KUBERNETES_MINOR:?}" "${KUBERNETES_PACKAGES:?}" "${CRIO_VERSION:?}" "${CRIO_PACKAGES:?}"
: "${KUBERNETES_KEY?}" "${CRIO_KEY?}" "${MULTUS:?}"

OWNER_FILE=$CNI_LAB_STATE/owner
PATCHES=/etc/kubernetes/cni-lab/patches
SOCKET=unix:///var/run/crio/crio.sock
# What this script writes by itself has a manifest of its own beside that of write_files. apt's files stay once there.
OWN_FILES=(
  /etc/apt/keyrings/cni-lab-{kubernetes,cri-o}.asc
  /etc/apt/sources.list.d/cni-lab-{kubernetes,cri-o}.list
  /etc/apt/preferences.d/cni-lab
)
# own_file PATH MODE <CONTENT: not at the end of a pipe, where the list would be lost.
own_file() {
  PHASE=$PHASE-own write_file "$1" "$2"
  OWN_FILES+=("$1")
}

in_container() { systemd-detect-virt --quiet --container; }

# --- Is this host ours to change? -------------------------------------------------------------------------------------

claim_host() {
  local trace
  if [[ -s $OWNER_FILE ]]; then
    [[ $(<"$OWNER_FILE") == "$OWNER" ]] ||
      fail "$NODE_NAME belongs to '$(<"$OWNER_FILE")', not to '$OWNER': destroy that stack, or take another host"
    return
  fi
  for trace in /etc/kubernetes/admin.conf /etc/kubernetes/kubelet.conf /etc/kubernetes/manifests/*.yaml \
    /var/lib/rancher/k3s /var/lib/rancher/rke2 /var/snap/microk8s; do
    [[ ! -e $trace ]] || fail "$NODE_NAME already carries a cluster that is not ours ($trace): it is left as it is." \
      "Take another host, or reset this one yourself (kubeadm reset) and repeat"
  done
  replace "$OWNER_FILE" 0644 "$OWNER"$'\n'
}

check_system() {
  local ID='' VERSION_ID='' PRETTY_NAME=''
  # shellcheck source=/dev/null
  . /etc/os-release
  SYSTEM="$ID $VERSION_ID"
  case $SYSTEM in
    'ubuntu 22.04' | 'ubuntu 24.04' | 'debian 12') ;;
    *) fail "$NODE_NAME runs ${PRETTY_NAME:-$SYSTEM}: use Ubuntu 22.04, Ubuntu 24.04 or Debian 12" ;;
  esac
  [[ $(</proc/1/comm) == systemd ]] || fail "$NODE_NAME does not run systemd as its first process: take one that does"
}

wait_for_first_boot() {
  local status=0
  [[ -n $(command -v cloud-init) ]] || return 0
  timeout 600 cloud-init status --wait >&2 || status=$?
  # 2: done with recoverable errors.
  case $status in
    0 | 2) ;;
    124) fail "cloud-init on $NODE_NAME was not done within 600 s: see /var/log/cloud-init-output.log there" ;;
    *) log "cloud-init ended with status $status: see /var/log/cloud-init-output.log; going on" ;;
  esac
}

# --- Name, swap, kernel -----------------------------------------------------------------------------------------------

name_host() {
  [[ $(hostname) == "$NODE_NAME" ]] || hostnamectl set-hostname -- "$NODE_NAME"
  write_hosts "$NODE_ADDRESS $NODE_NAME"
}

swap_off() {
  local unit
  local -a units=()
  # In a container this is the computer's swap: not ours to turn off.
  if in_container; then return 0; fi
  if [[ -e /etc/fstab ]] && grep -qE '^\s*[^#[:space:]]\S*\s+\S+\s+swap\s' /etc/fstab; then
    sed -E -i 's/^(\s*[^#[:space:]]\S*\s+\S+\s+swap\s)/# off for kubelet (cni-lab): \1/' /etc/fstab
    systemctl daemon-reload
  fi
  mapfile -t units < <(systemctl list-units --type=swap --all --plain --no-legend | awk '$3 == "active" {print $1}')
  for unit in "${units[@]}"; do
    systemctl mask --now -- "$unit" >&2
  done
  mapfile -t units < <(systemctl list-unit-files --state=enabled --no-legend zramswap.service zram-config.service)
  for unit in "${units[@]}"; do
    systemctl disable --now -- "${unit%% *}" >&2
  done
  swapoff --all
  [[ $(wc -l </proc/swaps) -le 1 ]] || fail "swap is still on ($(awk 'NR > 1 {print $1}' /proc/swaps)): turn it off"
}

# has_module NAME: loaded, loadable or built in. A container often has no /lib/modules: the thing itself is tried then.
has_module() {
  local link=cnilab-probe
  if [[ -d /sys/module/${1//-/_} ]] || modprobe --quiet -- "$1"; then return 0; fi
  case $1 in
    overlay) grep -qw overlay /proc/filesystems ;;
    br_netfilter) [[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]] ;;
    nf_conntrack) [[ -e /proc/sys/net/netfilter/nf_conntrack_max ]] ;;
    ip_vs*) [[ -e /proc/net/ip_vs ]] ;;
    nf_tables) nft list tables ;;
    vxlan) try_link "$link" type vxlan id 1 dstport 4789 local 127.0.0.1 ;;
    ipip) try_link "$link" type ipip local 127.0.0.1 remote 127.0.0.2 ;;
    veth | wireguard | dummy | bridge | ipvlan | macvlan) try_link "$link" type "$1" ;;
    *) grep -qsE "/${1//[-_]/[-_]}\.ko$" "/lib/modules/$(uname -r)/modules.builtin" ;;
  esac >&2
}

# try_link NAME TYPE…: the kernel can make such a link.
try_link() {
  local name=$1
  shift
  [[ ! -e /sys/class/net/$name ]] || ip link delete "$name"
  ip link add "$name" "$@" && ip link delete "$name"
}

load_modules() {
  local module
  local -a missing=()
  for module in $MODULES; do
    has_module "$module" || missing+=("$module")
  done
  ((${#missing[@]} == 0)) || fail "the kernel $(uname -r) of $NODE_NAME lacks ${missing[*]}, which this lab needs:" \
    "install its modules package (linux-modules-extra-$(uname -r)), take another kernel, or choose another mode"
}

# wrong_sysctls FILE: one line for each key whose live value differs.
wrong_sysctls() {
  local line key want have
  while IFS= read -r line; do
    [[ $line =~ ^[[:space:]]*-?([A-Za-z0-9_./*-]+)[[:space:]]*=[[:space:]]*(.*[^[:space:]])[[:space:]]*$ ]] || continue
    key=${BASH_REMATCH[1]} want=${BASH_REMATCH[2]}
    have=$(sysctl -n -- "$key" 2>&1) || true
    [[ ${have//$'\t'/ } == "$want" ]] || printf '%s is %s, wanted %s; ' "$key" "$have" "$want"
  done <"$1"
}

# All of the host's files in the order of a boot, so that a later one which undoes ours is seen now.
set_sysctls() {
  local file=/etc/sysctl.d/99-cni-lab.conf wrong
  if changed "$file" || [[ -n $(wrong_sysctls "$file") ]]; then
    systemctl restart systemd-sysctl.service || log "systemd-sysctl reports errors; what counts is checked next"
    wrong=$(wrong_sysctls "$file")
    [[ -z $wrong ]] || fail "kernel settings did not take: ${wrong%; }. Another file of /etc/sysctl.d or" \
      "/etc/sysctl.conf sets them later, or this machine may not change them"
    settled "$file"
  fi
}

# Mounts that calico-node and kube-proxy need when the machine is a container; a unit makes them again at each boot.
share_mounts() {
  in_container || return 0
  own_file /etc/systemd/system/cni-lab-mounts.service 0644 <<'UNIT'
[Unit]
Description=Mounts that Kubernetes networking needs in a container
DefaultDependencies=no
After=local-fs.target
Before=crio.service kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount --make-rshared /
ExecStart=mount --make-rshared /sys
ExecStart=mkdir -p /lib/modules

[Install]
WantedBy=multi-user.target
UNIT
  if changed /etc/systemd/system/cni-lab-mounts.service; then
    systemctl daemon-reload
    systemctl enable --quiet cni-lab-mounts.service
    systemctl restart cni-lab-mounts.service
    settled /etc/systemd/system/cni-lab-mounts.service
  fi
}

# --- Packages ---------------------------------------------------------------------------------------------------------

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

# A node of a running cluster moves by patch releases only: a minor needs kubeadm upgrade and a drain.
refuse_minor_change() {
  local installed
  [[ -e /etc/kubernetes/kubelet.conf ]] || return 0
  installed=$(version_of kubelet)
  [[ -z $installed || ${installed%.*} == "$KUBERNETES_MINOR" ]] ||
    fail "$NODE_NAME runs kubelet $installed in a cluster and the stack says $KUBERNETES_VERSION: a minor version" \
      "is not changed in place; replace the machines, or follow kubeadm upgrade and then repeat"
}

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
    own_file "$file" 0644 <"$temporary"
    rm -f -- "$temporary"
  fi
  own_file "/etc/apt/sources.list.d/cni-lab-$name.list" 0644 <<<"deb [signed-by=$file] ${url%Release.key} /"
}

# fingerprints FILE: those of all primary keys in it, on one line; nothing when gpg finds none.
fingerprints() {
  local home
  home=$(mktemp -d)
  { gpg --batch --no-options --homedir "$home" --show-keys --with-colons -- "$1" || log "$1 is no file of keys"; } |
    awk -F: '$1 == "pub" {primary = 1} $1 == "fpr" && primary {printf "%s%s", gap, $10; gap = " "; primary = 0}'
  rm -rf -- "$home"
}

install_packages() {
  local -a tools=()
  local tool crio="$CRIO_VERSION-*"
  # A minor alone stands for any of its patches.
  if [[ $CRIO_VERSION != *.*.* ]]; then crio="$CRIO_VERSION.*"; fi
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
  own_file /etc/apt/preferences.d/cni-lab 0644 <<PINS
Package: kubelet kubeadm kubectl
Pin: version $KUBERNETES_VERSION-*
Pin-Priority: 1001

Package: cri-o
Pin: version $crio
Pin-Priority: 1001
PINS
  retry 3 update_and_install --allow-downgrades --allow-change-held-packages "kubelet=$KUBERNETES_VERSION-*" \
    "kubeadm=$KUBERNETES_VERSION-*" "kubectl=$KUBERNETES_VERSION-*" "cri-o=$crio" cri-tools kubernetes-cni ||
    fail "the packages of Kubernetes $KUBERNETES_VERSION and CRI-O $CRIO_VERSION did not install on $NODE_NAME: see" \
      "above; does the repository have these versions, and can this host reach it?"
  have_versions || fail "$NODE_NAME has kubelet $(version_of kubelet), kubeadm $(version_of kubeadm), kubectl" \
    "$(version_of kubectl), crio $(version_of crio) after installing: remove the copy that comes first in PATH ($PATH)"
}

hold_packages() {
  local -a packages
  mapfile -t packages < <(dpkg-query --show --showformat '${db:Status-Want} ${Package}\n' |
    awk '$1 == "install" && $2 ~ /^(kubelet|kubeadm|kubectl|cri-o)$/ {print $2}')
  ((${#packages[@]} == 0)) || apt-mark hold "${packages[@]}" >&2
}

# --- CRI-O and kubelet ------------------------------------------------------------------------------------------------

# Where the host has cgroup v1, kubelet must be told to bear it; in a container systemd cannot manage v1 for CRI-O.
fit_cgroups() {
  mkdir -p -- "$PATCHES"
  [[ $(cgroup_version) == v1 ]] || return 0
  own_file "$PATCHES/kubeletconfiguration+strategic.yaml" 0644 <<<'failCgroupV1: false'
  if in_container; then
    own_file /etc/crio/crio.conf.d/30-cni-lab-cgroup.conf 0644 <<'CONF'
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
CONF
  fi
}

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
  local -a settings=(/etc/crio/crio.conf.d/20-cni-lab.conf /etc/crio/crio.conf.d/30-cni-lab-cgroup.conf)
  local registries=/etc/containers/registries.conf.d/50-cni-lab.conf
  systemctl is-enabled --quiet crio || systemctl enable crio >&2
  systemctl is-enabled --quiet kubelet || systemctl enable kubelet >&2
  if ! systemctl is-active --quiet crio; then
    if systemctl is-failed --quiet crio; then systemctl reset-failed crio; fi
    systemctl start crio || crio_failed
  elif changed "${settings[@]}"; then
    systemctl restart crio || crio_failed
  elif changed "$registries"; then
    systemctl reload crio || fail "CRI-O refuses its new registries on $NODE_NAME: see journalctl -u crio"
  fi
  wait_for 60 "CRI-O on $NODE_NAME" crio_answers
  settled "${settings[@]}" "$registries"
}

# networkd would take away the routes and rules that others made.
fit_networkd() {
  local file=/etc/systemd/networkd.conf.d/50-cni-lab.conf
  changed "$file" || return 0
  if systemctl is-active --quiet systemd-networkd; then systemctl restart systemd-networkd; fi
  settled "$file"
}

[[ $EUID == 0 ]] || fail "prepare needs root on $NODE_NAME"
check_system
claim_host
refuse_other_ca
wait_for_first_boot
name_host
swap_off
load_modules
write_files
set_sysctls
share_mounts
fit_networkd
mend_dpkg
if have_versions; then
  log "$NODE_NAME has Kubernetes $KUBERNETES_VERSION and CRI-O $CRIO_VERSION already: nothing to install"
else
  refuse_minor_change
  install_packages
fi
hold_packages
fit_cgroups
keep_files "$PHASE-own" "${OWN_FILES[@]}"
disable_sample_network
if [[ $MULTUS == no ]]; then
  # Multus left the stack file: what its step wrote here goes, so that Calico's own configuration is first again.
  keep_files files
  settled /etc/cni/net.d/00-multus.conf
fi
start_crio
printf '{"node": "%s", "machine": "%s", "system": "%s", "kernel": "%s", "cgroup": "%s", ' \
  "$NODE_NAME" "$MACHINE_KIND" "$SYSTEM" "$(uname -r)" "$(cgroup_version)"
printf '"kubernetes": "%s", "crio": "%s"}\n' "$(version_of kubelet)" "$(version_of crio)"
