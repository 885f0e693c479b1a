"""The certificates of a sandbox's API, from a CA of its own, and the kubeconfig that goes with them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from components.cluster.kubeadm import kubeconfig, pem_data


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain).decode()


class Authority:
    """A certificate authority. Certificates are pairs: PEM, and PEM of the key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
        builder = self._builder(self._name, self._key, 3650)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        ends = now + timedelta(days=days)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(min(now, ends) - timedelta(days=1)).not_valid_after(ends)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)

    def issue(self, user: str, organization: str | None = None, *, days: int = 3650) -> tuple[str, str]:
        """A certificate for a client and for a server on 127.0.0.1. With negative `days` it ended so many days ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if organization:
            names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = self._builder(x509.Name(names), key, days)
        alternative = [x509.DNSName("kubernetes"), x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key)

    def kubeconfig(self, server: str, *, days: int = 3650, user: str = "cni-lab:admin") -> str:
        """A kubeconfig as JSON with everything in it. With negative `days` the client's certificate has ended."""
        certificate, key = self.issue(user, "kubeadm:cluster-admins", days=days)
        config = kubeconfig(
            server=server,
            user=user,
            ca=pem_data(self.pem),
            certificate=pem_data(certificate),
            key=base64.b64encode(key.encode()).decode(),
        )
        return json.dumps(config, indent=2)
