"""Stand-ins for providers in a simulated `up`: every id and output follows from the resource's URN alone.

That is enough to run a whole program beyond the unknowns of a preview and to compare the two graphs. The values have
the right shape (PEM armour around base64, addresses, names of the requested length) but not the right content: no key
here is a key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

from engine.model import Json, Registration


def simulate_create(resource: Registration) -> tuple[str, Json]:
    """An id such as "vpc-3f2a00c1d2e4", and the outputs that a provider adds to the inputs."""
    outputs = _OUTPUTS.get(resource.type)
    return f"{resource.name}-{_digest(resource.urn)[:12]}", outputs(resource) if outputs else {}


def simulate_invoke(token: str, args: Json) -> Json:
    """A data source's answer: its arguments, an id, and a value for those that have one."""
    digest = _digest(f"{token} {sorted(args.items())}")
    return {**args, "id": digest[:12], "arn": f"arn:simulated:{digest[:12]}", "value": digest, "insecureValue": digest}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _pem(label: str, seed: str) -> str:
    body = base64.b64encode(hashlib.sha256(f"{label} {seed}".encode()).digest()).decode()
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"


def _address(network: str, seed: str) -> str:
    """A host address in a /16, given as its first two octets."""
    third, fourth = bytes.fromhex(_digest(seed)[:4])
    return f"{network}.{third}.{fourth % 254 + 1}"


def _key(resource: Registration) -> Json:
    secret, public = _pem("PRIVATE KEY", resource.urn), _pem("PUBLIC KEY", resource.urn)
    blob = base64.b64encode(hashlib.sha512(resource.urn.encode()).digest()).decode()
    digest = hashlib.sha256(resource.urn.encode()).digest()
    return {
        "privateKeyPem": secret,
        "privateKeyPemPkcs8": secret,
        "privateKeyOpenssh": _pem("OPENSSH PRIVATE KEY", resource.urn),
        "publicKeyPem": public,
        "publicKeyOpenssh": f"ssh-{str(resource.inputs.get('algorithm', 'ed25519')).lower()} {blob}\n",
        "publicKeyFingerprintMd5": ":".join(f"{byte:02x}" for byte in digest[:16]),
        "publicKeyFingerprintSha256": f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}",
    }


def _certificate(resource: Registration) -> Json:
    return {
        "certPem": _pem("CERTIFICATE", resource.urn),
        "validityStartTime": "2026-01-01T00:00:00Z",
        "validityEndTime": "2036-01-01T00:00:00Z",
    }


def _text(resource: Registration) -> Json:
    length = int(resource.inputs.get("length", 16))
    return {"result": (_digest(resource.urn) * (length // 64 + 1))[:length]}


def _bytes(resource: Registration) -> Json:
    length = int(resource.inputs.get("byteLength") or resource.inputs.get("length") or 8)
    data = hashlib.shake_256(resource.urn.encode()).digest(length)
    encoded = base64.b64encode(data).decode()
    return {"hex": data.hex(), "base64": encoded, "b64Std": encoded, "b64Url": base64.urlsafe_b64encode(data).decode()}


def _instance(resource: Registration) -> Json:
    return {
        "privateIp": resource.inputs.get("privateIp", _address("10.0", resource.urn)),
        "publicIp": _address("198.18", resource.urn),
        "primaryNetworkInterfaceId": f"eni-{_digest(resource.urn)[:12]}",
    }


def _eip(resource: Registration) -> Json:
    return {"publicIp": _address("198.19", resource.urn), "allocationId": f"eipalloc-{_digest(resource.urn)[:12]}"}


def _named(key: str) -> Callable[[Registration], Json]:
    """A name that the provider chooses where the program gives none."""
    return lambda resource: {key: resource.inputs.get(key, f"{resource.name}-{_digest(resource.urn)[:7]}")}


_OUTPUTS: dict[str, Callable[[Registration], Json]] = {
    "aws:ec2/keyPair:KeyPair": _named("keyName"),
    "aws:lb/loadBalancer:LoadBalancer": lambda r: {
        "dnsName": f"{r.name}.elb.example",
        "arn": f"arn:simulated:{r.name}",
    },
    "aws:lb/targetGroup:TargetGroup": lambda r: {"arn": f"arn:simulated:{r.name}"},
    "aws:iam/instanceProfile:InstanceProfile": _named("name"),
    "aws:iam/role:Role": _named("name"),
    "aws:ec2/eip:Eip": _eip,
    "aws:ec2/instance:Instance": _instance,
    "command:local:Command": lambda _: {"stdout": "{}", "stderr": ""},
    "command:remote:Command": lambda _: {"stdout": "{}", "stderr": ""},
    "random:index/randomBytes:RandomBytes": _bytes,
    "random:index/randomId:RandomId": _bytes,
    "random:index/randomPassword:RandomPassword": _text,
    "random:index/randomString:RandomString": _text,
    "tls:index/certRequest:CertRequest": lambda r: {"certRequestPem": _pem("CERTIFICATE REQUEST", r.urn)},
    "tls:index/locallySignedCert:LocallySignedCert": _certificate,
    "tls:index/privateKey:PrivateKey": _key,
    "tls:index/selfSignedCert:SelfSignedCert": _certificate,
}
