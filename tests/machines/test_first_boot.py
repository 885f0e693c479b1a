"""Runs the first-boot program out of the user data, against a server that stands in for the machine's metadata service
and for Parameter Store. The server checks every signature with botocore, AWS's own code.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from components.machines.aws.instances import DIAL_ATTEMPTS, DIAL_TIMEOUT_SECONDS, user_data

PARAMETER = "/cni-lab/test/node1/ssh-host-key"
ROLE = "lab-node1"
ACCESS = {"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": "s3cr3t+access/key", "Token": "s3ssion==token"}
IMDS_TOKEN = "imds-t0ken"

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


class Surroundings:
    """IMDS and Parameter Store on one port. `faults`: wrong answers, each given once, before the right one."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.role: str | None = ROLE
        self.slow = 0.0
        self.asked: list[str] = []
        self.wrong: list[str] = []
        surroundings = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                asks = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self.answer(200 if asks else 400, IMDS_TOKEN)

            def do_GET(self) -> None:
                base = "/latest/meta-data/iam/security-credentials/"
                answers = {
                    "/latest/meta-data/placement/region": "us-west-2",
                    "/latest/meta-data/services/domain": "amazonaws.com",
                }
                if surroundings.role:
                    answers |= {base: surroundings.role, base + surroundings.role: json.dumps(ACCESS)}
                if self.headers["X-aws-ec2-metadata-token"] != IMDS_TOKEN:
                    return self.answer(401, "")
                return self.answer(200, answers[self.path]) if self.path in answers else self.answer(404, "")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                surroundings.check_signature(self, body)
                time.sleep(surroundings.slow)
                if surroundings.wrong:
                    return self.answer(400, json.dumps({"__type": "InvalidSignatureException"}))
                if surroundings.faults:
                    status, text = surroundings.faults.pop(0)
                    return self.answer(status, json.dumps(text))
                assert self.headers["X-Amz-Target"] == "AmazonSSM.GetParameter"
                assert json.loads(body) == {"Name": f"{PARAMETER}/{ROLE}", "WithDecryption": True}
                return self.answer(200, json.dumps({"Parameter": {"Value": surroundings.value}}))

            def answer(self, status: int, text: str) -> None:
                surroundings.asked.append(f"{self.command} {self.path} {status}")
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def check_signature(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        given = request.headers["Authorization"]
        names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
        headers = {name: request.headers[name] for name in names}
        theirs = {name.lower() for name in request.headers if name.lower().startswith("x-amz-")} | {"host"}
        signed = AWSRequest("POST", self.url + request.path, data=body, headers=headers)
        signed.context["timestamp"] = request.headers["X-Amz-Date"]
        auth = SigV4Auth(Credentials(ACCESS["AccessKeyId"], ACCESS["SecretAccessKey"]), "ssm", "us-west-2")
        signature = auth.signature(auth.string_to_sign(signed, auth.canonical_request(signed)), signed)
        if not given.endswith(f"Signature={signature}"):
            self.wrong.append("signature")
        if not theirs <= set(names):
            self.wrong.append(f"not signed: {theirs - set(names)}")
        if request.headers["X-Amz-Security-Token"] != ACCESS["Token"]:
            self.wrong.append("session token")


class Host:
    """A machine's folders, and its bootcmd, which cloud-init runs as one shell line at every boot."""

    def __init__(self, path: Path, surroundings: Surroundings) -> None:
        self.ssh, self.instance, self.tools = path / "ssh", path / "instance", path / "bin"
        self.nologin = path / "nologin"
        self.nologin.write_text("System is booting up.")
        for folder in (self.ssh, self.instance, self.tools):
            folder.mkdir()
        for kind in ("rsa", "ed25519"):
            (self.ssh / f"ssh_host_{kind}_key").write_text("the image's own")
            (self.ssh / f"ssh_host_{kind}_key.pub").write_text("the image's own")
        self.arguments = path / "arguments"
        tool = self.tools / "ssh-keygen"
        real = shutil.which("ssh-keygen")
        tool.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >>{shlex.quote(str(self.arguments))}\nexec {real} "$@"\n')
        tool.chmod(0o755)
        (command,) = yaml.safe_load(user_data("node1", PARAMETER))["bootcmd"]
        self.line = shlex.join(command)
        self.env = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "CNI_LAB_IMDS": surroundings.url,
            "CNI_LAB_SSM": surroundings.url,
            "CNI_LAB_SSH": str(self.ssh),
            "CNI_LAB_INSTANCE": str(self.instance),
            "CNI_LAB_TIMEOUT_SECONDS": "2",
            "CNI_LAB_NOLOGIN": str(self.nologin),
            "CNI_LAB_SYN_RETRIES": str(path / "tcp_syn_retries"),
            "http_proxy": "http://127.0.0.1:9",
        }

    def boot(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", "-c", self.line], env={**self.env, **env}, text=True, capture_output=True)

    def keys(self) -> set[str]:
        return {path.name for path in self.ssh.iterdir()}


def make_key(path: Path, kind: str = "ed25519") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", path], check=True)
    return path.read_text()


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    playing = Surroundings(make_key(tmp_path / "host-key"))
    yield playing
    playing.server.shutdown()
    playing.server.server_close()


@pytest.fixture
def host(tmp_path: Path, surroundings: Surroundings) -> Host:
    folder = tmp_path / "machine"
    folder.mkdir()
    return Host(folder, surroundings)


def assert_secrets_kept(host: Host, done: subprocess.CompletedProcess[str], surroundings: Surroundings) -> None:
    told = done.stdout + done.stderr + (host.arguments.read_text() if host.arguments.exists() else "")
    body = surroundings.value.splitlines()
    for secret in (ACCESS["SecretAccessKey"], ACCESS["Token"], IMDS_TOKEN, *body[:1], *body[1:3]):
        assert secret not in told


def test_the_key_becomes_the_only_host_key(host: Host, surroundings: Surroundings, tmp_path: Path) -> None:
    done = host.boot()
    assert done.returncode == 0, done.stderr
    assert surroundings.wrong == []
    assert host.keys() == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}
    private = host.ssh / "ssh_host_ed25519_key"
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.read_text() == surroundings.value
    public = (tmp_path / "host-key.pub").read_text().split()[:2]
    assert (host.ssh / "ssh_host_ed25519_key.pub").read_text().split()[:2] == public
    assert PARAMETER in done.stdout
    assert_secrets_kept(host, done, surroundings)


def test_logins_are_allowed_before_sshd_listens(host: Host) -> None:
    for boot in ("first", "second"):
        host.nologin.write_text("System is booting up.")
        assert host.boot().returncode == 0
        assert not host.nologin.exists(), f"{boot} boot"


@pytest.mark.parametrize("finished", [False, True])
def test_what_a_cut_boot_had_begun_is_done_again(host: Host, finished: bool) -> None:
    """test_first_boot_machine.py has the real cloud-init. A boot that reached its end is not repeated."""
    done = host.instance / "sem"
    done.mkdir()
    for name in ("config_users_groups", "config_ssh", "consume_data.once"):
        (done / name).touch()
    if finished:
        (host.instance / "boot-finished").touch()
    assert host.boot().returncode == 0
    kept = {path.name for path in done.iterdir()}
    assert kept == {"consume_data.once"} | ({"config_users_groups", "config_ssh"} if finished else set())


def test_a_kernel_that_does_not_let_itself_be_set_stops_nothing(host: Host, tmp_path: Path) -> None:
    done = host.boot(CNI_LAB_SYN_RETRIES=str(tmp_path / "absent" / "file"))
    assert done.returncode == 0 and "connections to lost machines fail late" in done.stderr


def test_first_boot_tries_far_longer_than_anybody_dials(host: Host) -> None:
    """The next `up` after one that failed must find sshd running, also on the next day."""
    ((_, _, program, _),) = yaml.safe_load(user_data("node1", PARAMETER))["bootcmd"]
    names: dict[str, float] = {}
    exec(compile(program, "first_boot", "exec"), names)
    dialled = DIAL_ATTEMPTS * (5 + DIAL_TIMEOUT_SECONDS)
    assert names["TIMEOUT_SECONDS"] > 24 * dialled
    assert names["LONGEST_PAUSE_SECONDS"] < DIAL_ATTEMPTS * 4 / 2, "it tries while somebody dials"


def test_a_second_boot_sends_no_request(host: Host, surroundings: Surroundings) -> None:
    assert host.boot().returncode == 0
    before, asked = (host.ssh / "ssh_host_ed25519_key").stat(), len(surroundings.asked)
    done = host.boot()
    assert done.returncode == 0 and len(surroundings.asked) == asked
    assert (host.ssh / "ssh_host_ed25519_key").stat().st_mtime_ns == before.st_mtime_ns


def test_a_machine_made_from_an_image_of_another_gets_its_own_key(
    host: Host, surroundings: Surroundings, tmp_path: Path
) -> None:
    assert host.boot().returncode == 0
    surroundings.value = make_key(tmp_path / "other-key")
    fresh = tmp_path / "other-instance"
    fresh.mkdir()
    assert host.boot(CNI_LAB_INSTANCE=str(fresh)).returncode == 0
    assert (host.ssh / "ssh_host_ed25519_key").read_text() == surroundings.value


@pytest.mark.parametrize(
    "fault",
    [
        (400, {"__type": "com.amazonaws.ssm#AccessDeniedException", "Message": "not yet"}),
        (400, {"__type": "ParameterNotFound"}),  # right after it was made
        (500, {"__type": "InternalServerError"}),
        (503, {}),
        (200, {"Parameter": {}}),
        (200, {}),
    ],
)
def test_a_wrong_answer_is_followed_by_another_request(
    host: Host, surroundings: Surroundings, fault: tuple[int, dict[str, str]]
) -> None:
    surroundings.faults = [fault, fault]
    done = host.boot(CNI_LAB_TIMEOUT_SECONDS="10")
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert_secrets_kept(host, done, surroundings)


def break_it(surroundings: Surroundings, tmp_path: Path, how: str) -> None:
    match how:
        case "text":
            surroundings.value = (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5\n-----END OPENSSH PRIVATE KEY-----\n"
            )
        case "rsa":
            surroundings.value = make_key(tmp_path / "rsa-key", "rsa")
        case "locked":
            path = tmp_path / "locked-key"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", path], check=True)
            surroundings.value = path.read_text()
        case "denied":
            surroundings.faults = [(400, {"__type": "AccessDeniedException"})] * 99
        case "no role":
            surroundings.role = None


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("text", "ValueError"),
        ("rsa", "ValueError"),
        ("locked", "ValueError"),
        ("denied", "HTTP 400 AccessDeniedException"),
        ("no role", "security-credentials/: HTTP 404"),
    ],
)
def test_without_the_right_key_there_is_no_host_key(
    host: Host, surroundings: Surroundings, tmp_path: Path, how: str, said: str
) -> None:
    break_it(surroundings, tmp_path, how)
    done = host.boot()
    assert done.returncode == 1
    assert host.keys() == set(), "sshd must not start with any other key"
    assert said in done.stderr and "Fix:" in done.stderr.splitlines()[-1]
    assert_secrets_kept(host, done, surroundings)


def test_no_service_answers(host: Host, surroundings: Surroundings) -> None:
    start = time.monotonic()
    done = host.boot(CNI_LAB_IMDS="http://127.0.0.1:9")
    assert done.returncode == 1 and host.keys() == set()
    assert "Connection refused" in done.stderr
    assert time.monotonic() - start < 30
    assert surroundings.asked == []


def test_an_interrupted_boot_leaves_no_key_and_the_next_one_installs_it(host: Host, surroundings: Surroundings) -> None:
    surroundings.slow = 30
    running = subprocess.Popen(["/bin/sh", "-c", "exec " + host.line], env=host.env, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not any(line.startswith("GET") and "credentials/lab" in line for line in surroundings.asked):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    assert host.keys() == set()
    (host.ssh / ".cni-lab-host-key").write_text("half a key of a boot that was cut later")
    surroundings.slow = 0
    assert host.boot().returncode == 0
    assert host.keys() == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}


# Boots in forks of one process, which need no start of an interpreter. Prints what the boot after each cut leaves.
CUT = r"""
import json, os, signal, sys
from pathlib import Path
import hashlib, hmac, subprocess, time, urllib.request

program = compile(sys.argv.pop(1), "<first boot>", "exec")
ssh, instance, nologin = (Path(os.environ["CNI_LAB_" + name]) for name in ("SSH", "INSTANCE", "NOLOGIN"))
lines = {}

def boot(cut_at=None):
    # Killed before this line, the first time that it is about to run.
    def trace(frame, event, argument):
        code = frame.f_code
        if code.co_filename != "<first boot>":
            return None
        if event == "line" and code.co_name != "<module>":
            lines.setdefault((code.co_name, frame.f_lineno))
            if (code.co_name, frame.f_lineno) == cut_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    exec(program, {"__name__": "__main__"})
    sys.settrace(None)

def forked(cut_at=None):
    child = os.fork()
    if child == 0:
        try:
            boot(cut_at)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def keys():
    return {path.name: [path.read_text(), path.stat().st_mode & 0o777] for path in ssh.iterdir()}

boot()
seen = []
for cut_at in list(lines):
    for path in [*ssh.iterdir(), *instance.iterdir()]:
        path.unlink()
    for kind in ("rsa", "ed25519"):
        (ssh / f"ssh_host_{kind}_key").write_text("the image's own")
    nologin.write_text("System is booting up.")
    cut = forked(cut_at)
    between = keys().get("ssh_host_ed25519_key", [None])[0]
    seen.append([*cut_at, cut, between, forked(), keys(), nologin.exists()])
Path(sys.argv.pop()).write_text(json.dumps(seen))
"""


def test_cut_at_every_line_it_comes_good_at_the_next_boot(
    host: Host, surroundings: Surroundings, tmp_path: Path
) -> None:
    """Killed, as by a power failure, before each line in turn. What the next boot leaves is always the same."""
    ((_, _, program, folder),) = yaml.safe_load(user_data("node1", PARAMETER))["bootcmd"]
    answer = tmp_path / "seen"
    done = subprocess.run(
        [sys.executable, "-c", CUT, program, folder, str(answer)],
        env=host.env, text=True, capture_output=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(answer.read_text())
    assert {"ask", "sign", "fetch", "install", "get_host_key", "main"} <= {name for name, *_ in seen}
    assert len(seen) > 40
    public = (tmp_path / "host-key.pub").read_text().split()[:2]
    for name, line, cut, between, status, keys, forbidden in seen:
        where = f"{name}, line {line}"
        assert cut == -signal.SIGKILL, where
        # sshd starts after this; with the image's own key only where nothing was done yet.
        assert between in (None, surroundings.value, "the image's own"), where
        assert status == 0 and not forbidden, where
        assert set(keys) == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}, where
        assert keys["ssh_host_ed25519_key"] == [surroundings.value, 0o600], where
        assert keys["ssh_host_ed25519_key.pub"][0].split()[:2] == public, where
