#!/usr/bin/env bash
# Runs in the virtual machine for tests at every boot: unpacks the second disk, which is a tar archive with the checkout
# and the script `vm-command`, runs that script, and switches the machine off. The second serial port gets the output;
# its last line is `vm-command: exit N`.
set -euo pipefail

exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
code=1
trap 'echo "vm-command: exit $code"; sleep 1; systemctl --force --force poweroff' EXIT

mkdir -p /srv/checkout
tar --extract --file /dev/vdb --directory /srv/checkout
cd /srv/checkout
export HOME=/root LANG=C.UTF-8 PYTHONPATH=/opt/site
if bash vm-command; then code=0; else code=$?; fi
