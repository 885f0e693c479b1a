"""Keys, certificates and the join token, made before any machine boots.

So the kubeconfig is known without asking a machine for it, joins know the CA's hash beforehand, and no secret
travels through a command's output. kubeadm takes the CA as it stands and makes the rest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_random as random
import pulumi_tls as tls

from components.cluster.kubeadm import ca_cert_hash, kubeconfig, pem_data
from components.spec import names

YEARS_10 = 10 * 365 * 24


@dataclass(frozen=True)
class Client:
    """A client certificate of the cluster CA, PEM; the key is secret."""

    user: str
    ca: pulumi.Output[str]
    certificate: pulumi.Output[str]
    key: pulumi.Output[str]

    def kubeconfig(self, server: pulumi.Input[str]) -> dict[str, Any]:
        """As data, leaf by leaf: a preview shows the server while the key stays secret."""
        return kubeconfig(
            server=server,
            user=self.user,
            ca=self.ca.apply(pem_data),
            certificate=self.certificate.apply(pem_data),
            key=self.key.apply(pem_data),
        )


class Pki(pulumi.ComponentResource):
    """`ca_certificate`, `ca_key` (PEM), `ca_hash`, `token`, `certificate_key`, and clients of the CA."""

    ca_certificate: pulumi.Output[str]
    ca_key: pulumi.Output[str]
    ca_hash: pulumi.Output[str]
    token: pulumi.Output[str]
    certificate_key: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.PKI, name, {}, opts)
        self._name = name
        key = self._key("ca")
        ca = tls.SelfSignedCert(
            f"{name}-ca",
            private_key_pem=key.private_key_pem,
            is_ca_certificate=True,
            set_subject_key_id=True,
            subject=tls.SelfSignedCertSubjectArgs(common_name="kubernetes"),
            validity_period_hours=YEARS_10,
            allowed_uses=["cert_signing", "crl_signing", "digital_signature", "key_encipherment"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.ca_certificate = ca.cert_pem
        self.ca_key = key.private_key_pem
        self.ca_hash = key.public_key_pem.apply(ca_cert_hash)
        self.token = pulumi.Output.concat(self._letters("token-id", 6), ".", self._letters("token-secret", 16))
        # 32 bytes in hex. RandomBytes would hand them out as its id, which is stored and shown in clear.
        secret = random.RandomPassword(f"{name}-certificate-key", length=64, opts=pulumi.ResourceOptions(parent=self))
        self.certificate_key = secret.result.apply(lambda text: hashlib.sha256(text.encode()).hexdigest())
        self.admin = self.client("admin", "cni-lab:admin", organization="kubeadm:cluster-admins")
        self.multus = self.client("multus", "cni-lab:multus")
        self.register_outputs({})

    def client(self, name: str, user: str, organization: str | None = None) -> Client:
        """A client certificate for `user`, valid as long as the CA: nothing in a lab expires under a static file."""
        key = self._key(name)
        request = tls.CertRequest(
            f"{self._name}-{name}",
            private_key_pem=key.private_key_pem,
            subject=tls.CertRequestSubjectArgs(common_name=user, organization=organization),
            opts=pulumi.ResourceOptions(parent=self),
        )
        certificate = tls.LocallySignedCert(
            f"{self._name}-{name}",
            cert_request_pem=request.cert_request_pem,
            ca_private_key_pem=self.ca_key,
            ca_cert_pem=self.ca_certificate,
            validity_period_hours=YEARS_10,
            allowed_uses=["client_auth", "digital_signature"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        return Client(user, self.ca_certificate, certificate.cert_pem, key.private_key_pem)

    def _key(self, name: str) -> tls.PrivateKey:
        opts = pulumi.ResourceOptions(parent=self)
        return tls.PrivateKey(f"{self._name}-{name}", algorithm="ECDSA", ecdsa_curve="P256", opts=opts)

    def _letters(self, name: str, length: int) -> pulumi.Output[str]:
        """Lower-case letters and digits, as a bootstrap token's halves want them; secret."""
        return random.RandomPassword(
            f"{self._name}-{name}",
            length=length,
            special=False,
            upper=False,
            opts=pulumi.ResourceOptions(parent=self),
        ).result
