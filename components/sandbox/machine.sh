#!/usr/bin/env bash
# The machines of a sandbox: a router, which is the lab's network, and one machine for each node, in namespaces of their
# own. All of them end with holder.py, process 1 of their PID namespace. Each machine's root is a tmpfs: the computer's
# own files are under /host, read-only.
#
#   machine.sh router DIRECTORY          in fresh network, mount and UTS namespaces; prints "ready" when all are up
#   machine.sh node DIRECTORY NODE       started by the router in the node's own namespaces
#
# DIRECTORY holds what files.py and links.py made; DIRECTORY/mnt/host is the read-only view of this computer.
set -euo pipefail

# What a plain machine has; the last two are NixOS'.
export PATH=/opt/sandbox/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH=$PATH:/run/current-system/sw/bin:/run/wrappers/bin

role=$1 directory=$2
NODE_SECONDS=$((60 * ${CNILAB_SLOWDOWN:-1})) # how long one node may take
AT_ONCE=4       # nodes that are set up at the same time

fail() {
  echo "$*" >&2
  exit 1
}

# batch PROGRAM… FILE: run `PROGRAM… -batch FILE`; nothing for an empty file.
batch() {
  local file=${*: -1}
  if [[ -s $file ]]; then "${@:1:$#-1}" -batch "$file"; fi
}

# load_rules FILE [PROGRAM…]: add a file of rules, through a program that enters a namespace. Its suffix names the tool.
load_rules() {
  local file=$1
  shift
  case $file in
    *.iptables) "$@" iptables-restore --noflush <"$file" ;;
    *.nft) "$@" nft -f "$file" ;;
  esac
}

# set_sysctl VALUE FILE…: files that are not there are passed over, for a user namespace shows fewer.
set_sysctl() {
  local value=$1 file
  shift
  for file in "$@"; do
    if [[ -w $file ]]; then echo "$value" >"$file"; fi
  done
}

# Wait until one more node has said on file descriptor 3 that it is ready.
await_node() {
  local word node
  read -r -t "$NODE_SECONDS" -u 3 word node || fail "a node was not ready within $NODE_SECONDS s"
  [[ $word == ready ]] || fail "node $node: $(tail -n 3 "$directory/$node/log")"
}

router() {
  local i node
  local -A node_of=()
  mount -t tmpfs -o mode=0755 tmpfs /run
  mkdir -p /run/machines /run/netns
  hostname router
  if [[ -e $directory/ipip ]]; then load_ipip; fi
  ip -batch "$directory/router.batch"
  set_sysctl 1 /proc/sys/net/ipv4/ip_forward
  set_sysctl 0 /proc/sys/net/ipv4/conf/{all,default}/{rp_filter,send_redirects}
  mkfifo /run/machines/reports
  exec 3<>/run/machines/reports
  mapfile -t nodes <"$directory/nodes"
  for i in "${!nodes[@]}"; do
    node=${nodes[i]}
    nsenter "--net=/run/netns/$node" unshare --mount --uts --pid --fork --kill-child -- \
      bash "${BASH_SOURCE[0]}" node "$directory" "$node" </dev/null >"$directory/$node/log" 2>&1 &
    node_of[$!]=$node
    if ((i >= AT_ONCE)); then await_node; fi
  done
  for ((i = 0; i < ${#nodes[@]} && i < AT_ONCE; i++)); do await_node; done
  echo ready
  # A machine that ends takes the sandbox with it.
  wait -n || true
  for i in "${!node_of[@]}"; do
    [[ -e /proc/$i ]] || fail "the machine ${node_of[$i]} ended"
  done
  fail "a machine ended"
}

# The kernel loads the module when a link of its kind is asked for, also without root. It then makes tunl0 in every new
# namespace. A link without addresses would be tunl0 itself, which the module has just made in this one.
load_ipip() {
  ip link add probe0 type ipip local 127.0.0.1 remote 127.0.0.2
  ip link delete probe0
}

# Give the node a root of its own.
take_root() {
  local plan=$directory/$node root=/run/machines/$node path
  local -a links=() directories=() settings=()
  mkdir -p "$root"
  mount -t tmpfs -o mode=0755 tmpfs "$root"
  cd "$root"
  mkdir -p host proc sys run/netns run/lock run/sandbox tmp mnt root etc var/lib var/log var/tmp opt
  chmod 1777 tmp var/tmp
  mount --rbind "$directory/mnt/host" host
  mount -t proc proc proc
  mount -t sysfs sysfs sys
  mount --bind "$plan" run/sandbox
  for path in host/*; do
    if [[ -L $path ]]; then
      links+=("$path") # as /bin -> usr/bin
    elif [[ ! -e ${path#host/} ]]; then
      directories+=("$path")
    fi
  done
  ((${#links[@]} == 0)) || cp -P -t . "${links[@]}"
  ln -s -t . "${directories[@]}"
  for path in host/etc/*; do
    # This computer's own CNI files, names and logins are not the node's.
    case ${path#host/etc/} in
      cni | hostname | hosts | ssh | resolv.conf | motd | mtab) ;;
      *) settings+=("/$path") ;;
    esac
  done
  ((${#settings[@]} == 0)) || ln -s -t etc "${settings[@]}"
  if [[ -e host/run/current-system ]]; then ln -s -t run /host/run/current-system /host/run/wrappers; fi
  ln -s /run var/run
  cp -a -- "$plan/root/." .
  pivot_root . mnt
  cd /
  umount --lazy /mnt
}

node() {
  local plan=/run/sandbox conf file name
  trap 'echo "failed $node" >&3' EXIT
  hostname "$node"
  take_root

  set_sysctl 1 /proc/sys/net/ipv4/ip_forward
  set_sysctl 0 /proc/sys/net/ipv4/conf/{all,default}/{rp_filter,send_redirects}
  if [[ -e $plan/ipip && ! -e /sys/class/net/tunl0 ]]; then ip tunnel add tunl0 mode ipip; fi
  ip -batch "$plan/node.batch"
  batch bridge "$plan/fdb.batch"
  if [[ -e $plan/wireguard.conf ]]; then wg setconf wireguard.cali "$plan/wireguard.conf"; fi
  for file in "$plan"/rules/*; do load_rules "$file"; done
  # What Felix sets on the host side of every pod's veth.
  for conf in /proc/sys/net/ipv4/conf/cali*; do
    [[ -d $conf ]] || continue
    set_sysctl 1 "$conf"/{proxy_arp,route_localnet,forwarding}
  done
  for file in "$plan"/pods/*; do
    [[ -e $file ]] || continue
    batch ip -netns "${file##*/}" "$file"
  done
  # What Calico's plugin sets in a pod, and the rules of the pods that are the gateway of others.
  while read -r file; do
    ip netns exec "$file" bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  done <"$plan/forwarding"
  for file in "$plan"/firewalls/*; do
    [[ -e $file ]] || continue
    name=${file##*/}
    load_rules "$file" ip netns exec "${name%.*}"
  done

  trap - EXIT
  umount --lazy "$plan"
  echo "ready $node" >&3
  exec 3>&-
  # As process 1 of its namespace bash reaps what commands leave behind.
  while :; do
    sleep 3600 &
    wait $! || true
  done
}

case $role in
  router) router ;;
  node)
    node=$3
    node
    ;;
  *) fail "machine.sh router DIRECTORY" ;;
esac
