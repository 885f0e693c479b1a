"""What an EC2 machine asks at its first boot, on this computer: the instance metadata service (IMDSv2) and Parameter
Store.

Parameter Store answers by TLS and checks every signature with botocore, AWS's own code. A test can hold any request
back, so that a machine is cut exactly there.
"""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

REGION = "us-west-2"
SSM_HOST = f"ssm.{REGION}.amazonaws.com"
ACCESS = {"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "s3cr3t+access/key", "Token": "s3ssion==token"}
_IMDS_TOKEN = "imds-t0ken"


def metadata(instance: str, role: str, address: str, login_key: str) -> dict[str, Any]:
    """The tree under `meta-data/`, as far as cloud-init and first boot look at it."""
    return {
        "ami-id": "ami-0123456789abcdef0",
        "hostname": f"ip-{address.replace('.', '-')}",
        "instance-id": instance,
        "instance-type": "t3.large",
        "local-hostname": f"ip-{address.replace('.', '-')}.{REGION}.compute.internal",
        "local-ipv4": address,
        "placement": {"availability-zone": f"{REGION}a", "region": REGION},
        "public-keys": {"0": {"openssh-key": login_key}},
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "iam": {"security-credentials": {role: json.dumps(ACCESS)}},
    }


class Services:
    """Both services, on two ports of one address. `asked`: what was asked, in order. `before`: called with each of
    these words before the answer; it may block."""

    def __init__(self, address: str, folder: Path, meta_data: dict[str, Any], user_data: str) -> None:
        self.meta_data, self.user_data = meta_data, user_data
        self.parameters: dict[str, str] = {}
        self.asked: list[str] = []
        self.problems: list[str] = []
        self.before: Callable[[str], None] = lambda words: None
        services = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                services._token(self)

            def do_GET(self) -> None:
                services._metadata(self)

            def do_POST(self) -> None:
                services._parameter(self)

            def log_message(self, *args: object) -> None:
                pass

        self.imds = ThreadingHTTPServer((address, 0), Handler)
        self.ssm = ThreadingHTTPServer((address, 0), Handler)
        self.certificate = _certificate(folder / "ssm.pem", SSM_HOST)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "ssm.pem")
        self.ssm.socket = context.wrap_socket(self.ssm.socket, server_side=True, do_handshake_on_connect=False)
        for server in (self.imds, self.ssm):
            # A machine that is cut leaves connections behind.
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def close(self) -> None:
        for server in (self.imds, self.ssm):
            server.shutdown()
            server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, status: int, text: str, words: str) -> None:
        self.asked.append(words)
        self.before(words)
        body = text.encode()
        try:
            request.send_response(status)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # the machine was cut

    def _token(self, request: BaseHTTPRequestHandler) -> None:
        allowed = request.path == "/latest/api/token" and request.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(request, 200 if allowed else 400, _IMDS_TOKEN, "token")

    def _metadata(self, request: BaseHTTPRequestHandler) -> None:
        _, _version, what, *rest = [*request.path.split("/"), "", ""][: request.path.count("/") + 1]
        words = "/".join([what, *rest])
        # In a container cloud-init finds no sign of EC2, and then asks without a token. First boot uses urllib.
        needs_token = (request.headers["User-Agent"] or "").startswith("Python-urllib/")
        if needs_token and request.headers["X-aws-ec2-metadata-token"] != _IMDS_TOKEN:
            self.problems.append(f"{words}: no token")
            return self._answer(request, 401, "", words)
        if what == "user-data":
            return self._answer(request, 200, self.user_data, words)
        found: Any = self.meta_data if what == "meta-data" else None
        for part in (part for part in rest if part):
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            return self._answer(request, 404, "", words)
        return self._answer(request, 200, _listing(rest, found) if isinstance(found, dict) else found, words)

    def _parameter(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        name = str(json.loads(body)["Name"])
        if not _is_signed(request, body):
            self.problems.append(f"{name}: the signature is wrong")
            return self._answer(request, 400, json.dumps({"__type": "InvalidSignatureException"}), f"parameter {name}")
        if name not in self.parameters:
            return self._answer(request, 400, json.dumps({"__type": "ParameterNotFound"}), f"parameter {name}")
        text = json.dumps({"Parameter": {"Name": name, "Value": self.parameters[name]}})
        return self._answer(request, 200, text, f"parameter {name}")


def _listing(path: list[str], folder: dict[str, Any]) -> str:
    if [part for part in path if part] == ["public-keys"]:
        return "\n".join(f"{number}=login" for number in folder)
    return "\n".join(f"{name}/" if isinstance(inner, dict) else name for name, inner in folder.items())


def _is_signed(request: BaseHTTPRequestHandler, body: bytes) -> bool:
    given = request.headers["Authorization"]
    names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
    signed = AWSRequest(
        "POST", f"https://{SSM_HOST}/", data=body, headers={name: request.headers[name] for name in names}
    )
    signed.context["timestamp"] = request.headers["X-Amz-Date"]
    auth = SigV4Auth(Credentials(ACCESS["AccessKeyId"], ACCESS["SecretAccessKey"]), "ssm", REGION)
    expected = auth.signature(auth.string_to_sign(signed, auth.canonical_request(signed)), signed)
    return bool(given.endswith(f"Signature={expected}")) and request.headers["X-Amz-Security-Token"] == ACCESS["Token"]


def _certificate(path: Path, host: str) -> str:
    """A certificate of its own for `host`; writes it with its key to `path`, and returns the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(Encoding.PEM).decode()
    path.write_text(text + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return text
