# shellcheck shell=bash
# Prepares a bare Debian or Ubuntu machine for kubeadm: kernel, packages, CRI-O. Prints what the machine has, as JSON.
# Comes after packages.sh and modules.sh, which take variables of their own.
# OWNER: the stack that the host belongs to from now on. MACHINE_KIND: its provider. MODULES: kernel modules, separated
# by spaces. MULTUS: yes or no.
: "${OWNER:?}" "${NODE_NAME:?}" "${NODE_ADDRESS:?}" "${MACHINE_KIND:?}" "${MODULES:?}"
: "${MULTUS:?}"

OWNER_FILE=$CNI_LAB_STATE/owner
# The files that this script writes beside those of write_files; they have a manifest of their own. apt's files are
# always listed, because they stay when a run has nothing to install and does not write them.
OWN_FILES=(
  /etc/apt/keyrings/cni-lab-{kubernetes,cri-o}.asc
  "${APT_LISTS[@]}"
  /etc/apt/preferences.d/cni-lab
)
# own_file PATH MODE <CONTENT: not at the end of a pipeline, where OWN_FILES would be changed in a subshell only.
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
  for trace in "$ADMIN_CONF" "$KUBELET_CONF" /etc/kubernetes/manifests/*.yaml \
    /var/lib/rancher/k3s /var/lib/rancher/rke2 /var/snap/microk8s; do
    [[ ! -e $trace ]] || fail "$NODE_NAME already carries a cluster that is not ours ($trace): it is left as it is." \
      "Take another host, or reset this one yourself (kubeadm reset) and repeat"
  done
  replace "$OWNER_FILE" 0644 "$OWNER"$'\n'
}

# later_release ID VERSION: whether it is a later release of Ubuntu or Debian than those of check_system. Debian's
# testing and unstable have no VERSION_ID; their next release is later as well.
later_release() {
  case $1 in
    ubuntu) [[ $2 =~ ^[0-9]{2}\.[0-9]{2}$ ]] && newer "$2" 26.04 ;;
    debian) [[ -z $2 ]] || { [[ $2 =~ ^[0-9]+$ ]] && (($2 > 13)); } ;;
    *) return 1 ;;
  esac
}

check_system() {
  local ID='' VERSION_ID='' PRETTY_NAME=''
  # shellcheck source=/dev/null
  . /etc/os-release
  SYSTEM="$ID $VERSION_ID"
  case $SYSTEM in
    'ubuntu 22.04' | 'ubuntu 24.04' | 'ubuntu 26.04' | 'debian 12' | 'debian 13') ;;
    *)
      later_release "$ID" "$VERSION_ID" || fail "$NODE_NAME runs ${PRETTY_NAME:-$SYSTEM}: use Ubuntu 22.04, 24.04 or" \
        "26.04, or Debian 12 or 13"
      log "warning: $NODE_NAME runs ${PRETTY_NAME:-$SYSTEM}, a later release than this program knows;" \
        "it was not tried"
      ;;
  esac
  [[ $(</proc/1/comm) == systemd ]] || fail "$NODE_NAME does not run systemd as its first process: take one that does"
}

first_boot_done() {
  local said
  # Its status is that of the boot, also of one that is not done.
  said=$(cloud-init status --long 2>&1) || true
  [[ ! $said =~ ^status:\ (not (run|started)|running) ]] || { echo "$said" && return 1; }
}

wait_for_first_boot() {
  local status=0
  [[ -n $(command -v cloud-init) ]] || return 0
  wait_for 600 "cloud-init on $NODE_NAME (see /var/log/cloud-init-output.log there)" first_boot_done
  cloud-init status >&2 || status=$?
  # 2: done, with errors that cloud-init could recover from.
  [[ $status == [02] ]] ||
    log "cloud-init ended with status $status: see /var/log/cloud-init-output.log; going on"
}

# --- Name, swap, kernel -----------------------------------------------------------------------------------------------

name_host() {
  [[ $(hostname) == "$NODE_NAME" ]] || hostnamectl set-hostname -- "$NODE_NAME"
  write_hosts "$NODE_ADDRESS $NODE_NAME"
}

swap_off() {
  local unit
  local -a units=()
  # A container sees the computer's swap, which is not ours to turn off.
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

load_modules() {
  local module
  local -a missing=()
  # Older kernels lack what the nftables rules of Calico and kube-proxy need (Calico's documentation, "Requirements").
  [[ " $MODULES " != *' nf_tables '* ]] || kernel_at_least 5.13 ||
    fail "the kernel $(uname -r) of $NODE_NAME is older than 5.13, which calico.linuxDataplane: Nftables needs:" \
      "write Iptables, or take a newer kernel"
  for module in $MODULES; do
    has_module "$module" >&2 || missing+=("$module")
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

# Applies all sysctl files of the host in the order of a boot, so that a later file which undoes ours shows now.
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

# A node answers for its pods' gateway 169.254.1.1 by proxy ARP, and the kernel does that only for an address to which
# it has a route (net/ipv4/arp.c, arp_process). Without one, pods start and reach nothing, not even the API.
check_pod_gateway() {
  local said
  said=$(ip -4 route get 169.254.1.1 2>&1) || fail "$NODE_NAME has no route to 169.254.1.1, the gateway of Calico's" \
    "pods, because it has no default route (${said##*: }): add a default route, which may lead nowhere, or" \
    "ip route add 169.254.1.1 dev INTERFACE, and make it last over a reboot"
}

# --- CRI-O and kubelet ------------------------------------------------------------------------------------------------

# On cgroup v1 kubelet starts only if it is configured to accept that. In a container, systemd cannot manage cgroup v1
# for CRI-O.
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

# Moves CNI files of other runtimes aside (podman's, or flannel's of an earlier cluster). They would make the node Ready
# before Calico runs, and the first pods would get addresses that no other node can reach. Reset puts them back. Once
# kubelet is set up, the files in that directory are Calico's and Multus'.
set_networks_aside() {
  local file bridge
  [[ ! -e $KUBELET_CONF ]] || return 0
  for file in /etc/cni/net.d/*.{conf,conflist,json}; do
    # disable_sample_network deals with CRI-O's sample; Calico rewrites its own file.
    if [[ ! -f $file || $file == */10-calico.conflist || $file == *-crio-bridge.* ]] || is_own_file "$file"; then
      continue
    fi
    bridge=$(used_bridge "$file")
    [[ -z $bridge ]] || fail "$file on $NODE_NAME gives containers that run now their addresses (bridge $bridge), and" \
      "would make the node Ready without Calico: stop those containers, or take another host, and repeat"
    # It is listed before it moves, so that no interruption can make reset forget it.
    add_line "$file" "$CNI_LAB_STATE/networks-aside"
    mv -fT -- "$file" "$file.cni-lab-aside"
    log "$file is another runtime's: it is $file.cni-lab-aside until destroy puts it back"
  done
}

# is_own_file PATH: whether a step of this stack wrote it.
is_own_file() {
  local manifest
  for manifest in "$CNI_LAB_STATE"/files/*; do
    if in_list "$1" "$manifest"; then return 0; fi
  done
  return 1
}

# used_bridge FILE: a bridge that the CNI configuration FILE names and that something is attached to.
used_bridge() {
  local bridge
  while IFS= read -r bridge; do
    if compgen -G "/sys/class/net/$bridge/brif/*" >&2; then printf '%s' "$bridge"; return; fi
  done < <(grep -oE '"bridge"[[:space:]]*:[[:space:]]*"[^"/]+"' -- "$1" | sed -E 's/.*"([^"]+)"$/\1/')
}

# Without its file, networkd would remove the routes and rules that others made.
fit_networkd() {
  local file=/etc/systemd/networkd.conf.d/50-cni-lab.conf
  changed "$file" || return 0
  if systemctl is-active --quiet systemd-networkd; then systemctl restart systemd-networkd; fi
  settled "$file"
}

[[ $EUID == 0 ]] || fail "prepare needs root on $NODE_NAME"
check_system
check_pod_gateway
claim_host
refuse_jump
refuse_other_ca
restore_manifests
wait_for_first_boot
set_networks_aside
name_host
swap_off
load_modules
write_files
set_sysctls
share_mounts
fit_networkd
repair_dpkg
if have_versions; then
  log "$NODE_NAME has Kubernetes $KUBERNETES_VERSION and CRI-O $CRIO_VERSION already: nothing to install"
elif awaits_upgrade; then
  log "$NODE_NAME has Kubernetes $(version_of kubelet) and CRI-O $(version_of crio): its upgrade follows when it is" \
    "this node's turn"
else
  install_packages
fi
hold_packages
ask_pause
if [[ -n ${PAUSE:-} ]]; then OWN_FILES+=("$PAUSE_SETTINGS"); fi
fit_cgroups
keep_files "$PHASE-own" "${OWN_FILES[@]}"
disable_sample_network
if [[ $MULTUS == no ]]; then
  # The stack file has no Multus any more: remove what its step wrote here, so that Calico's own configuration is first
  # again.
  keep_files files
  settled /etc/cni/net.d/00-multus.conf
fi
if [[ -z ${CALICOCTL_SHA256:-} ]]; then keep_files calicoctl; fi
# A node that awaits an upgrade restarts CRI-O with the new settings when it is its turn.
if ! awaits_upgrade || ! systemctl is-active --quiet crio; then start_crio; fi
# An interrupted upgrade may have stopped it.
if joined && changed /usr/bin/kubelet; then systemctl start kubelet; fi
printf '{"node": "%s", "machine": "%s", "system": "%s", "kernel": "%s", "cgroup": "%s", ' \
  "$NODE_NAME" "$MACHINE_KIND" "$SYSTEM" "$(uname -r)" "$(cgroup_version)"
printf '"kubernetes": "%s", "crio": "%s"}\n' "$(version_of kubelet)" "$(version_of crio)"
