# shellcheck shell=bash
# Takes everything that this stack made on an existing host away again, and nothing else. May run any number of times.
# Installed with lib.sh before it.
NODE_NAME=${NODE_NAME:-$(hostname)}

SOCKET=unix:///var/run/crio/crio.sock
LOGS=/var/log/cni-lab
SELF=/usr/local/lib/cni-lab/reset.sh

if [[ ! -s $CNI_LAB_STATE/owner ]]; then
  log "$NODE_NAME has nothing of ours: left as it is"
  exit 0
fi

# What a cut connection left running must not write after us.
wait_for_steps() {
  local lock
  for lock in "$CNI_LAB_LOCK"-*; do
    [[ ! -e $lock ]] || flock -w 60 "$lock" true ||
      fail "a step still runs on $NODE_NAME (process $(<"$lock")): wait for it or end it, then repeat"
  done
}

reset_kubeadm() {
  [[ -n $(command -v kubeadm) ]] || return 0
  logged "$LOGS/kubeadm-reset.log" timeout --kill-after=10 240 kubeadm reset --force --cri-socket "$SOCKET" ||
    log "kubeadm reset did not do all of its work: see $LOGS/kubeadm-reset.log; going on"
  rm -rf -- /var/lib/etcd/member /etc/kubernetes/cni-lab
}

# unlink PATTERN…: links whose names match, where they are.
unlink_interfaces() {
  local pattern path
  for pattern in "$@"; do
    for path in /sys/class/net/$pattern; do
      [[ -e $path ]] || continue
      ip link delete "${path##*/}" || log "the link ${path##*/} could not be deleted; going on"
    done
  done
}

reset_links() {
  local bridge
  unlink_interfaces vxlan.calico wireguard.cali 'cali*' 'cni0'
  # tunl0 belongs to the kernel's ipip module and cannot be deleted.
  if [[ -e /sys/class/net/tunl0 ]]; then
    ip address flush dev tunl0
    ip link set tunl0 down
  fi
  [[ -e $CNI_LAB_STATE/bridges ]] || return 0
  while IFS= read -r bridge; do
    [[ ! -d /sys/class/net/$bridge/bridge ]] || unlink_interfaces "$bridge"
  done <"$CNI_LAB_STATE/bridges"
}

# Chains and rules of Calico, kube-proxy and kubelet go, and what `./lab break` put there; all others are loaded back as
# they were. In both backends: a container may bring the one that the host does not use.
reset_iptables() {
  local tool rules
  for tool in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
    [[ -n $(command -v "$tool-save") ]] || continue
    rules=$("$tool-save") || continue
    if grep -qE '(^:| |")(cali[-:]|KUBE-|cni-lab fault")' <<<"$rules"; then
      grep -vE '((^:|-A |-j |-g )(cali-|KUBE-)|--comment ("?cali:|"cni-lab fault"))' <<<"$rules" | "$tool-restore" ||
        log "the rules of $tool could not be taken back; going on"
    fi
  done
}

reset_nftables() {
  local family table
  [[ -n $(command -v nft) ]] || return 0
  while read -r _ family table; do
    if [[ $table =~ ^(calico|kube-proxy)$ ]]; then nft delete table "$family" "$table"; fi
  done < <(nft list tables)
}

# Calico mounts the host's cgroups below its run directory: what is removed there while they are is the host's own.
unmount_calico() {
  local target
  local -a targets=()
  mapfile -t targets < <(findmnt --raw --noheadings --output TARGET | grep -E '^(/var)?/run/calico(/|$)' | sort -r)
  for target in "${targets[@]}"; do
    umount -- "$target" || fail "$target on $NODE_NAME cannot be unmounted: see what uses it (fuser -m $target), repeat"
  done
}

# Every file in our manifests, whichever step wrote it; this one, which a run after a cut needs, comes last of all.
remove_files() {
  local manifest renamed
  for manifest in "$CNI_LAB_STATE"/files/*; do
    [[ ! -e $manifest ]] || keep_files "${manifest##*/}" "$SELF"
  done
  # What `./lab break` renamed is in no manifest.
  for renamed in "$CNI_LAB_STATE"/faults/*-delegate-renamed/file; do
    [[ ! -e $renamed ]] || rm -f -- "$(<"$renamed").bak"
  done
  unmount_calico
  rm -rf --one-file-system -- /etc/cni/net.d/10-calico.conflist /etc/cni/net.d/calico-kubeconfig \
    /etc/cni/net.d/multus.d /etc/cni/net.d/00-multus.conf /var/lib/cni /var/lib/calico /var/run/calico
}

# What prepare moved out of Calico's way goes back to whoever wrote it, unless there is a new file of that name.
restore_networks() {
  local file
  [[ -e $CNI_LAB_STATE/networks-aside ]] || return 0
  while IFS= read -r file; do
    [[ ! -e $file.cni-lab-aside || -e $file ]] || mv -fT -- "$file.cni-lab-aside" "$file"
  done <"$CNI_LAB_STATE/networks-aside"
}

release_packages() {
  local -a held
  mapfile -t held < <(apt-mark showhold | grep -xE 'kubelet|kubeadm|kubectl|cri-o')
  ((${#held[@]} == 0)) || apt-mark unhold "${held[@]}" >&2
}

wait_for_steps
reset_kubeadm
reset_links
reset_iptables
reset_nftables
if [[ -e /etc/systemd/system/cni-lab-mounts.service ]]; then systemctl disable --now cni-lab-mounts.service; fi
write_hosts
remove_files
restore_networks
release_packages
[[ ! -L /root/.kube/config ]] || rm -f -- /root/.kube/config
systemctl daemon-reload
if systemctl is-active --quiet crio; then systemctl restart crio; fi
# Last: while this is there, a run that was cut is taken up again.
rm -rf -- "$LOGS" "$CNI_LAB_STATE" "${SELF%/*}"
log "$NODE_NAME is free again; the packages stay, and may be removed with apt"
