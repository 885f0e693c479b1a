"""First boot of an EC2 machine: gets its SSH host key from Parameter Store before sshd starts.

The text of this file goes into the user data, and cloud-init runs it as a bootcmd. It uses the standard library alone,
of the Python that cloud-init needs anyway; curl cannot do it, because before 7.87 (Ubuntu 22.04) it does not sign the
session token. It fails closed: until the right key is installed there is no host key at all, and sshd does not start.
Secrets are never printed, and never on a command line.
"""

import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

IMDS = os.environ.get("CNI_LAB_IMDS", "http://169.254.169.254")
SSM = os.environ.get("CNI_LAB_SSM", "")  # empty: the endpoint of the machine's region
SSH = Path(os.environ.get("CNI_LAB_SSH", "/etc/ssh"))
NOLOGIN = Path(os.environ.get("CNI_LAB_NOLOGIN", "/run/nologin"))
SYN_RETRIES = Path(os.environ.get("CNI_LAB_SYN_RETRIES", "/proc/sys/net/ipv4/tcp_syn_retries"))
# cloud-init's folder for this instance: a machine made from an image of this one has another folder.
INSTANCE = Path(os.environ.get("CNI_LAB_INSTANCE", "/var/lib/cloud/instance"))
DONE = INSTANCE / "cni-lab-host-key"
# IAM needs a while until a new role is known everywhere. An `up` that fails may leave a machine that cannot reach
# Parameter Store; the next `up`, also on the next day, must find sshd running.
TIMEOUT_SECONDS = float(os.environ.get("CNI_LAB_TIMEOUT_SECONDS", "86400"))
PAUSE_SECONDS = min(5.0, TIMEOUT_SECONDS / 10)
LONGEST_PAUSE_SECONDS = 30.0  # the client dials for several minutes

# The environment's proxies are not meant for these link-local and regional addresses.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> str:
    """The response's body. Raises OSError with the service's error code, but without the response."""
    try:
        with HTTP.open(urllib.request.Request(url, body, headers, method=method), timeout=10) as answer:
            return str(answer.read(65536), "utf-8")
    except urllib.error.HTTPError as error:
        try:
            kind = json.loads(error.read(65536))["__type"].rpartition("#")[2]
        except (ValueError, KeyError, TypeError, AttributeError):
            kind = error.reason
        raise OSError(f"{method} {url}: HTTP {error.code} {kind}") from None


def sign(url: str, region: str, body: bytes, headers: dict[str, str], access: dict[str, str]) -> dict[str, str]:
    """The request's headers, with an AWS Signature Version 4 over all of them."""
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    host = url.split("/")[2]
    signed = {**headers, "host": host, "x-amz-date": now, "x-amz-security-token": access["Token"]}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{now[:8]}/{region}/ssm/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = ("AWS4" + access["SecretAccessKey"]).encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    credential = f"Credential={access['AccessKeyId']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}"}


def fetch(folder: str) -> str:
    """The decrypted value of FOLDER/ROLE, read with the credentials of the machine's own role, ROLE."""
    token = ask("PUT", f"{IMDS}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "300"})

    def metadata(path: str) -> str:
        return ask("GET", f"{IMDS}/latest/meta-data/{path}", {"X-aws-ec2-metadata-token": token})

    region = metadata("placement/region")
    role = metadata("iam/security-credentials/").split()[0]
    access = json.loads(metadata(f"iam/security-credentials/{role}"))
    url = (SSM or f"https://ssm.{region}.{metadata('services/domain')}") + "/"
    body = json.dumps({"Name": f"{folder}/{role}", "WithDecryption": True}).encode()
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "AmazonSSM.GetParameter"}
    return str(json.loads(ask("POST", url, sign(url, region, body, headers, access), body))["Parameter"]["Value"])


def install(key: str) -> None:
    """Make `key` the only host key. Raises ValueError where the text is not an ed25519 private key."""
    new = SSH / ".cni-lab-host-key"
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(key.rstrip("\n") + "\n")
            file.flush()
            os.fsync(file.fileno())
        derive = ["ssh-keygen", "-y", "-P", "", "-f", str(new)]
        public = subprocess.run(derive, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if public.returncode != 0 or not public.stdout.startswith("ssh-ed25519 "):
            raise ValueError("the parameter's value is not an ed25519 private key")
        (SSH / "ssh_host_ed25519_key.pub").write_text(public.stdout)
        new.rename(SSH / "ssh_host_ed25519_key")
    finally:
        new.unlink(missing_ok=True)
    DONE.touch()


def get_host_key(folder: str) -> None:
    """Install the machine's host key, unless an earlier boot has done it. Ends the program where it cannot."""
    if DONE.exists():
        return
    for stale in SSH.glob("ssh_host_*"):  # made for the image
        stale.unlink()
    start = time.monotonic()
    while True:
        try:
            install(fetch(folder))
        except (OSError, LookupError, ValueError, TypeError, subprocess.TimeoutExpired) as error:
            # The text of any other error may quote the key or the credentials.
            reason = error if isinstance(error, OSError) else type(error).__name__
            print(f"cni-lab: SSH host key {folder}: {reason}", file=sys.stderr, flush=True)
            waited = time.monotonic() - start
            if waited > TIMEOUT_SECONDS:
                fix = "reboot the machine, which then tries again, or replace it"
                sys.exit(f"cni-lab: no SSH host key after {waited:.0f} s; sshd stays off. Fix: {fix}")
            time.sleep(min(max(PAUSE_SECONDS, waited / 20), LONGEST_PAUSE_SECONDS))
        else:
            print(f"cni-lab: SSH host key {folder} installed", flush=True)
            return


def repeat_cut_boot() -> None:
    """Let cloud-init do again what an earlier boot had only begun when the power failed. It notes that a module is done
    before it runs it: without this, a machine that was cut while its login user was made would never have one."""
    if not (INSTANCE / "boot-finished").exists():
        for done in (INSTANCE / "sem").glob("config_*"):
            done.unlink()


def give_up_sooner() -> None:
    """Let a TCP connection to a machine that is gone fail after 7 s instead of 127 s. On the jump host this bounds each
    attempt of the client, which has no limit of its own there."""
    try:
        SYN_RETRIES.write_text("2\n")
    except OSError as error:
        print(f"cni-lab: {error}: connections to lost machines fail late", file=sys.stderr, flush=True)


def main(folder: str) -> None:
    repeat_cut_boot()
    give_up_sooner()
    get_host_key(folder)
    # systemd forbids logins until systemd-user-sessions, which runs after this and beside sshd. A login refused then
    # would close the one channel that the client has through the jump host.
    NOLOGIN.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1])
