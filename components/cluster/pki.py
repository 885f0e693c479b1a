"""Keys, certificates and the join token, which are made before any machine boots.

So the kubeconfig is known without asking a machine for it, joining nodes know the CA's checksum beforehand, and no
secret passes through a command's output. kubeadm uses this CA and makes all other certificates.
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

TEN_YEARS_HOURS = 10 * 365 * 24


@dataclass(frozen=True)
class Client:
    """A client certificate of the cluster's CA, in PEM. The key is secret."""

    user: str
    ca: pulumi.Output[str]
    certificate: pulumi.Output[str]
    key: pulumi.Output[str]

    def kubeconfig(self, server: pulumi.Input[str], proxy: str | None = None) -> dict[str, Any]:
        """The kubeconfig as data, so that a preview shows its server while its key stays secret."""
        return kubeconfig(
            server=server,
            user=self.user,
            ca=self.ca.apply(pem_data),
            certificate=self.certificate.apply(pem_data),
            key=self.key.apply(pem_data),
            proxy=proxy,
        )


class Pki(pulumi.ComponentResource):
    """The CA and what depends on it. `ca_certificate`, `ca_key`: PEM. `ca_hash`: the CA's checksum as kubeadm takes it.
    `token`: the bootstrap token. `certificate_key`: encrypts the certificates for further control planes. `admin`,
    `multus`: clients of the API."""

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
            validity_period_hours=TEN_YEARS_HOURS,
            allowed_uses=["cert_signing", "crl_signing", "digital_signature", "key_encipherment"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.ca_certificate = ca.cert_pem
        self.ca_key = key.private_key_pem
        self.ca_hash = key.public_key_pem.apply(ca_cert_hash)
        self.token = pulumi.Output.concat(self._letters("token-id", 6), ".", self._letters("token-secret", 16))
        # 32 bytes in hex. RandomBytes would have them as its id, which the state and the logs show in clear text.
        secret = random.RandomPassword(f"{name}-certificate-key", length=64, opts=pulumi.ResourceOptions(parent=self))
        self.certificate_key = secret.result.apply(lambda text: hashlib.sha256(text.encode()).hexdigest())
        self.admin = self.client("admin", "cni-lab:admin", organization="kubeadm:cluster-admins")
        self.multus = self.client("multus", "cni-lab:multus")
        self.register_outputs({})

    def client(self, name: str, user: str, organization: str | None = None) -> Client:
        """A client certificate for `user`. It is valid as long as the CA, so that no file on a node expires."""
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
            validity_period_hours=TEN_YEARS_HOURS,
            allowed_uses=["client_auth", "digital_signature"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        return Client(user, self.ca_certificate, certificate.cert_pem, key.private_key_pem)

    def _key(self, name: str) -> tls.PrivateKey:
        opts = pulumi.ResourceOptions(parent=self)
        return tls.PrivateKey(f"{self._name}-{name}", algorithm="ECDSA", ecdsa_curve="P256", opts=opts)

    def _letters(self, name: str, length: int) -> pulumi.Output[str]:
        """Random lower-case letters and digits, as the halves of a bootstrap token must be; secret."""
        return random.RandomPassword(
            f"{self._name}-{name}",
            length=length,
            special=False,
            upper=False,
            opts=pulumi.ResourceOptions(parent=self),
        ).result
