"""SSH keys made by the program, so that both ends know the other's key before they first meet."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_tls as tls


@dataclass(frozen=True)
class SshKey:
    """An ed25519 key pair. `private` is a secret in OpenSSH's format; `public` is one line, `ssh-ed25519 AAAA…`."""

    resource: tls.PrivateKey
    private: pulumi.Output[str]
    public: pulumi.Output[str]


def ssh_key(name: str, opts: pulumi.ResourceOptions) -> SshKey:
    """Make a key pair. ed25519, because the SSH client in the command provider offers only SHA-1 for RSA."""
    key = tls.PrivateKey(name, algorithm="ED25519", opts=opts)
    return SshKey(key, pulumi.Output.secret(key.private_key_openssh), key.public_key_openssh.apply(str.strip))
