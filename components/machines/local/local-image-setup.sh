#!/usr/bin/env bash
# Runs once inside a fresh Debian root: makes it a machine that boots in a container and is like no other.
set -euo pipefail

# Keys and ids are each machine's own.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
mkdir -p /lib/modules
apt-get clean
# Things that only hardware has, and timers that would hold the apt lock.
systemctl mask getty.target console-getty.service systemd-logind.service systemd-remount-fs.service \
  systemd-timesyncd.service systemd-udevd.service systemd-udev-trigger.service dev-hugepages.mount \
  sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount apt-daily.timer apt-daily-upgrade.timer
systemctl enable ssh.service
