"""SSH keys that the program makes, so that both ends know each other's key before the first connection."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_tls as tls


@dataclass(frozen=True)
class SshKey:
    """An ed25519 key pair. `private`: secret, in OpenSSH's format. `public`: one line, `ssh-ed25519 AAAA…`."""

    resource: tls.PrivateKey
    private: pulumi.Output[str]
    public: pulumi.Output[str]


def ssh_key(name: str, opts: pulumi.ResourceOptions) -> SshKey:
    """Make a key pair. It is ed25519, because for RSA the command provider's SSH client offers only SHA-1 signatures,
    which sshd refuses."""
    key = tls.PrivateKey(name, algorithm="ED25519", opts=opts)
    return SshKey(key, pulumi.Output.secret(key.private_key_openssh), key.public_key_openssh.apply(str.strip))
