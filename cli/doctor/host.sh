# shellcheck shell=bash
# Prints what a host has, as lines "KEY<TAB>VALUE"; a key may occur several times. Changes nothing, loads no module.
# Comes after components/node/modules.sh. MODULES, separated by spaces; ADDRESS: the node's address in the stack file.
: "${MODULES?}" "${ADDRESS:?}"

say() { printf '%s\t%s\n' "$1" "${2//[$'\n\t']/ }"; }

# has_module would load it.
if [[ -n $(command -v modprobe) ]]; then
  modprobe() { command modprobe --dry-run "$@"; }
fi

# shellcheck source=/dev/null
say system "$(. /etc/os-release && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-}")"
say init "$(</proc/1/comm)"
say kernel "$(uname -r)"
say virtual "$(systemd-detect-virt --container || true)"
[[ ! -s /var/lib/cni-lab/owner ]] || say owner "$(</var/lib/cni-lab/owner)"
for trace in /etc/kubernetes/{admin,kubelet}.conf /etc/kubernetes/manifests/*.yaml /var/lib/rancher/{k3s,rke2} \
  /var/snap/microk8s; do
  [[ ! -e $trace ]] || say cluster "$trace"
done
for file in /etc/cni/net.d/*.{conf,conflist,json}; do
  [[ ! -f $file ]] || say network "$file"
done
while read -r device _; do
  [[ $device == Filename ]] || say swap "$device"
done </proc/swaps
say memory "$(awk '/^MemTotal:/ {print $2}' /proc/meminfo)"
say processors "$(nproc)"
for folder in /var/lib /var/log; do
  say disk "$folder $(df --output=pcent,avail,target -k -- "$folder" | tail -n 1)"
done
# kubelet, and on control planes the API, etcd, the scheduler and the controller manager.
for port in 10250 6443 2379 2380 10257 10259; do
  if grep -qiE "^ *[0-9]+: [0-9A-F]+:$(printf '%04X' "$port") [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6; then
    say port "$port"
  fi
done
[[ " $(hostname -I) " != *" $ADDRESS "* ]] || say address "$ADDRESS"
for module in $MODULES; do
  reason=$(has_module "$module" 2>&1) || say lacks "$module ($reason)"
done
say end reached
