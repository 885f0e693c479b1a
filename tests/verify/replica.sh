#!/usr/bin/env bash
# The machines of a replica: a router and one machine per node, each in namespaces of its own. They live as long as
# this script's standard input is open; then the kernel ends every process and frees every interface, also when
# the test was killed. Nothing is written outside DIRECTORY: each machine's root is an overlay in memory.
#
#   replica.sh router DIRECTORY          in fresh net, mount, uts and pid namespaces; prints "ready"
#   replica.sh node DIRECTORY NODE       started by the router in the node's own
set -euo pipefail

# The plain one: a machine has no version managers in its way.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

role=$1 directory=$2

fail() {
  echo "replica: $*" >&2
  exit 1
}

# batch PROGRAM… FILE: run `PROGRAM… -batch FILE`; nothing for an empty file.
batch() {
  local file=${*: -1}
  if [[ -s $file ]]; then "${@:1:$#-1}" -batch "$file"; fi
}

await_node() {
  local deadline=$((SECONDS + 60))
  until [[ -e $directory/$1/ready ]]; do
    [[ ! -e $directory/$1/failed ]] || fail "$1: $(<"$directory/$1/log")"
    ((SECONDS < deadline)) || fail "$1 was not ready within 60 s: $(<"$directory/$1/log")"
    sleep 0.01
  done
}

router() {
  local i node
  mount --make-rprivate /
  mount -t proc proc /proc
  mount -t tmpfs -o mode=0755 tmpfs /run
  mkdir -p /run/machines /run/netns
  hostname router
  ip -batch "$directory/router.batch"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
  echo 0 >/proc/sys/net/ipv4/conf/all/send_redirects
  echo 0 >/proc/sys/net/ipv4/conf/default/send_redirects
  mapfile -t nodes <"$directory/nodes"
  for i in "${!nodes[@]}"; do
    node=${nodes[i]}
    nsenter "--net=/run/netns/$node" unshare --mount --uts --pid --fork --kill-child -- \
      bash "${BASH_SOURCE[0]}" node "$directory" "$node" </dev/null 2>"$directory/$node/log" &
    # A few at once: others use this computer too.
    if ((i >= 3)); then await_node "${nodes[i - 3]}"; fi
  done
  for node in "${nodes[@]}"; do await_node "$node"; done
  echo ready
  # Until the test is over: it holds the other end.
  cat >/dev/null
}

# Take the node's own root: everything of this computer to read, nothing of it to write.
take_root() {
  local plan=$directory/$node base=/run/machines/$node root path
  root=$base/root
  mkdir -p "$base/upper" "$base/work" "$root"
  mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$root"
  # This computer's own CNI files and logins are none of the node's.
  for path in etc/cni var/lib/cni var/lib/cni-lab var/lib/calico opt/cni etc/ssh \
    usr/local/bin/journalctl usr/local/bin/crictl root/.ssh root/.bashrc root/.profile root/.bash_profile; do
    rm -rf -- "${root:?}/$path"
  done
  cp -a -- "$plan/root/." "$root/"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=0755 tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mkdir -p "$root/run/replica" "$root/run/lock" "$root/run/sshd" "$root/run/netns" "$root/mnt"
  mount --bind "$plan" "$root/run/replica"
  cd "$root"
  pivot_root . mnt
  cd /
  umount --lazy /mnt
}

node() {
  local plan=/run/replica interface netns conf pid
  # Read before /proc is the node's own: the id by which the router's namespace knows this machine.
  read -r pid _ </proc/self/stat
  echo "$pid" >"$directory/$node/pid"
  trap 'touch "$directory/$node/failed"' EXIT
  mount --make-rprivate /
  hostname "$node"
  take_root
  trap 'touch /run/replica/failed' EXIT

  echo 1 >/proc/sys/net/ipv4/ip_forward
  for conf in all default; do
    echo 0 >/proc/sys/net/ipv4/conf/$conf/rp_filter
    echo 0 >/proc/sys/net/ipv4/conf/$conf/send_redirects
  done
  ip -batch "$plan/node.batch"
  batch bridge "$plan/fdb.batch"
  iptables-restore <"$plan/nat.rules"
  # What Felix sets on every host end of a pod's veth.
  for conf in /proc/sys/net/ipv4/conf/cali*; do
    [[ -d $conf ]] || continue
    interface=${conf##*/}
    echo 1 >"$conf/proxy_arp"
    echo 1 >"$conf/route_localnet"
    echo 1 >"$conf/forwarding"
    echo 0 >"/proc/sys/net/ipv4/neigh/$interface/proxy_delay"
  done
  for file in "$plan"/pods/*; do
    [[ -e $file ]] || continue
    netns=${file##*/}
    batch ip -netns "$netns" "$file"
  done

  /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config 2>>/var/log/sshd.log &
  for _ in {1..200}; do
    if (: </dev/tcp/127.0.0.1/22) 2>/dev/null; then break; fi
    sleep 0.02
  done
  (: </dev/tcp/127.0.0.1/22) || fail "sshd does not listen: $(</var/log/sshd.log)"
  trap - EXIT
  touch "$plan/ready"
  umount --lazy "$plan"
  # As process 1 of its namespace bash takes in, and buries, what commands leave behind.
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
  *) fail "replica.sh router DIRECTORY" ;;
esac
