# shellcheck shell=bash
# Removes from an existing host everything that this stack made there, and nothing else. May run any number of times.
# Installed with lib.sh before it. TUNNEL_DEVICES: the devices of Calico's tunnels.
: "${TUNNEL_DEVICES:?}"
NODE_NAME=${NODE_NAME:-$(hostname)}

SELF=/usr/local/lib/cni-lab/reset.sh

if [[ ! -s $CNI_LAB_STATE/owner ]]; then
  log "$NODE_NAME has nothing of ours: it is left as it is"
  exit 0
fi

# A step that a cut connection left running must not write after this.
wait_for_steps() {
  local lock
  for lock in "$CNI_LAB_LOCK"-*; do
    [[ ! -e $lock ]] || flock -w 60 "$lock" true ||
      fail "a step is still running on $NODE_NAME (process $(<"$lock")): wait for it or end it, then repeat"
  done
}

reset_kubeadm() {
  [[ -n $(command -v kubeadm) ]] || return 0
  kubeadm_reset 240 || log "kubeadm reset did not do all of its work: see $CNI_LAB_LOGS/kubeadm-reset.log; going on"
  rm -rf -- /var/lib/etcd/member /etc/kubernetes/cni-lab
}

# remove_links PATTERN…: delete the network links whose names match. A link that cannot be deleted, because it belongs
# to its kernel module (tunl0), is emptied.
remove_links() {
  local pattern path link said
  for pattern in "$@"; do
    for path in /sys/class/net/$pattern; do
      [[ -e $path ]] || continue
      link=${path##*/}
      said=$(ip link delete "$link" 2>&1) || { ip address flush dev "$link" && ip link set "$link" down; } ||
        log "the link $link could not be deleted ($said); going on"
    done
  done
}

reset_links() {
  local bridge
  # shellcheck disable=SC2086  # one device a word
  remove_links $TUNNEL_DEVICES 'cali*' cni0
  [[ -e $CNI_LAB_STATE/bridges ]] || return 0
  while IFS= read -r bridge; do
    [[ ! -d /sys/class/net/$bridge/bridge ]] || remove_links "$bridge"
  done <"$CNI_LAB_STATE/bridges"
}

# Removes the chains and rules of Calico, kube-proxy and kubelet, and those of `./lab break`. All others are loaded back
# as they were. In both backends, because a container may use the one that the host does not.
reset_iptables() {
  local tool rules
  for tool in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
    [[ -n $(command -v "$tool-save") ]] || continue
    rules=$("$tool-save") || continue
    if grep -qE '(^:| |")(cali[-:]|KUBE-|cni-lab fault")' <<<"$rules"; then
      grep -vE '((^:|-A |-j |-g )(cali-|KUBE-)|--comment ("?cali:|"cni-lab fault"))' <<<"$rules" | "$tool-restore" ||
        log "the rules of $tool could not be loaded back; going on"
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

# Calico mounts the host's cgroups below its run directory. While they are mounted, removing that directory would remove
# the host's own cgroups.
unmount_calico() {
  local target
  local -a targets=()
  mapfile -t targets < <(findmnt --raw --noheadings --output TARGET | grep -E '^(/var)?/run/calico(/|$)' | sort -r)
  for target in "${targets[@]}"; do
    umount -- "$target" ||
      fail "$target on $NODE_NAME cannot be unmounted: see what uses it (fuser -m $target), and repeat"
  done
}

# Removes every file in our manifests, whichever step wrote it. This script itself goes at the very end, because a run
# after an interruption needs it.
remove_files() {
  local manifest renamed
  for manifest in "$CNI_LAB_STATE"/files/*; do
    [[ ! -e $manifest ]] || keep_files "${manifest##*/}" "$SELF"
  done
  # A file that `./lab break` renamed is in no manifest.
  for renamed in "$CNI_LAB_STATE"/faults/*-delegate-renamed/file; do
    [[ ! -e $renamed ]] || rm -f -- "$(<"$renamed").bak"
  done
  unmount_calico
  rm -rf --one-file-system -- /etc/cni/net.d/10-calico.conflist /etc/cni/net.d/calico-kubeconfig \
    /etc/cni/net.d/{multus.d,00-multus.conf,whereabouts.d} /var/lib/cni /var/lib/calico /var/run/calico
}

# Puts the CNI files back that prepare.sh moved aside, unless there is a new file of that name.
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
# Last, because an interrupted run can only go on while this is there.
rm -rf -- "$CNI_LAB_LOGS" "$CNI_LAB_STATE" "${SELF%/*}"
log "$NODE_NAME is free again; the packages stay, and can be removed with apt"
