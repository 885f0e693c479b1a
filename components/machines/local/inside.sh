#!/usr/bin/env bash
# inside.sh LOGIN AUTHORIZED_KEY: runs inside a new machine and sets up SSH there. stdin: the machine's SSH host key.
set -euo pipefail
login=$1 authorized_key=$2

umask 077
cat >/etc/ssh/ssh_host_ed25519_key
ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key >/etc/ssh/ssh_host_ed25519_key.pub
umask 022

id "$login" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$login"
# The account has no password, but must not be locked: sshd refuses locked accounts.
usermod --password '*' "$login"
home=$(getent passwd "$login" | cut -d: -f6)
group=$(id --group --name "$login")
install -d -m 0700 -o "$login" -g "$group" "$home/.ssh"
printf '%s\n' "$authorized_key" >"$home/.ssh/authorized_keys"
chown "$login:$group" "$home/.ssh/authorized_keys"
chmod 0600 "$home/.ssh/authorized_keys"
if [[ $login != root ]]; then
  printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$login" >/etc/sudoers.d/90-cni-lab
  chmod 0440 /etc/sudoers.d/90-cni-lab
fi

# Many steps may connect at once. The only host key is the one that Pulumi has pinned.
cat >/etc/ssh/sshd_config.d/00-cni-lab.conf <<'CONFIG'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
UseDNS no
CONFIG
for unit in ssh.service sshd.service; do
  if systemctl cat "$unit" >/dev/null 2>&1; then
    systemctl enable --quiet "$unit"
    systemctl restart "$unit"
    exit 0
  fi
done
echo "the image has no ssh.service and no sshd.service" >&2
exit 1
