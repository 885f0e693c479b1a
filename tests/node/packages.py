"""Package repositories of the form of pkgs.k8s.io and download.opensuse.org, signed, served to the test hosts.

The packages are stand-ins with the real names and versions: programs that tell their version, and a CRI-O that is a
unit which runs and can be reloaded. Where CNILAB_DEBS names a folder with the real packages, those are served.
"""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

UNIT = "[Service]\nExecStart=/usr/bin/{0} --run\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
PROGRAM = """#!/bin/sh
case $1 in
  --run) exec sleep infinity ;;
  --runtime-endpoint) exec systemctl is-active crio ;;
  *) echo "{name} v{version}" ;;
esac
"""


@dataclass(frozen=True)
class Key:
    """A signing key in a GnuPG home of its own."""

    home: Path
    fingerprint: str

    @classmethod
    def make(cls, home: Path) -> Key:
        home.mkdir(mode=0o700)
        gpg = ["gpg", "--batch", "--homedir", str(home)]
        generate = ["--passphrase", "", "--quick-generate-key", "packages@example.invalid", "rsa2048", "sign", "1d"]
        subprocess.run([*gpg, *generate], check=True, capture_output=True)
        listing = subprocess.run([*gpg, "--list-keys", "--with-colons"], check=True, capture_output=True, text=True)
        return cls(home, next(line.split(":")[9] for line in listing.stdout.splitlines() if line.startswith("fpr")))

    def public(self) -> str:
        gpg = ["gpg", "--batch", "--homedir", str(self.home), "--armor", "--export"]
        return subprocess.run(gpg, check=True, capture_output=True, text=True).stdout

    def sign(self, release: Path) -> None:
        gpg = ["gpg", "--batch", "--yes", "--homedir", str(self.home), "--clearsign"]
        subprocess.run([*gpg, "--output", str(release.with_name("InRelease")), str(release)], check=True)


class Repositories:
    """`kubernetes` and `crio` are base addresses as the stack file has them; both are signed by `key`."""

    def __init__(self, root: Path, address: str) -> None:
        self.root = root
        self.key = Key.make(root / "gnupg")
        self.stranger = Key.make(root / "stranger")
        handler = partial(_Quiet, directory=str(root / "www"))
        self._server = http.server.ThreadingHTTPServer((address, 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.base = f"http://{address}:{self._server.server_port}"
        self.kubernetes, self.crio = f"{self.base}/core", f"{self.base}/crio"
        for name in ("core", "crio"):
            self.folder(name).mkdir(parents=True)
            (self.folder(name) / "Release.key").write_text(self.key.public())
        real = os.environ.get("CNILAB_DEBS")
        for deb in sorted(Path(real).glob("*.deb")) if real else []:
            shutil.copy(deb, self.folder("crio" if deb.name.startswith("cri-o_") else "core"))
        if not real:
            for version in ("1.36.2", "1.36.3"):
                for name in ("kubelet", "kubeadm", "kubectl"):
                    self._deb("core", name, version, name)
                self._deb("crio", "cri-o", version, "crio")
            self._deb("core", "cri-tools", "1.36.0", "crictl")
            self._deb("core", "kubernetes-cni", "1.9.1", "")
        for name in ("core", "crio"):
            self._index(name)

    def folder(self, name: str) -> Path:
        return self.root / "www" / name / "v1.36" / "deb"

    def close(self) -> None:
        self._server.shutdown()
        for key in (self.key, self.stranger):
            subprocess.run(["gpgconf", "--homedir", str(key.home), "--kill", "all"], check=True)

    def _deb(self, repository: str, name: str, version: str, program: str) -> None:
        tree = self.root / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        control = tree / "DEBIAN" / "control"
        control.parent.mkdir(parents=True)
        control.write_text(
            f"Package: {name}\nVersion: {version}-1.1\nArchitecture: all\nMaintainer: Test <test@example.invalid>\n"
            f"Description: stand-in for {name}\n"
        )
        if program:
            path = tree / "usr" / "bin" / program
            path.parent.mkdir(parents=True)
            path.write_text(PROGRAM.format(name=program, version=version))
            path.chmod(0o755)
        if program in ("crio", "kubelet"):
            unit = tree / "usr" / "lib" / "systemd" / "system" / f"{program}.service"
            unit.parent.mkdir(parents=True)
            unit.write_text(UNIT.format(program))
        target = self.folder(repository) / f"{name}_{version}-1.1_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(target)], check=True, capture_output=True
        )

    def _index(self, name: str) -> None:
        folder = self.folder(name)
        entries = []
        for deb in sorted(folder.glob("*.deb")):
            control = subprocess.run(["dpkg-deb", "-f", str(deb)], check=True, capture_output=True, text=True).stdout
            digest = hashlib.sha256(deb.read_bytes()).hexdigest()
            entries.append(f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n")
        packages = "\n".join(entries)
        (folder / "Packages").write_text(packages)
        digest = hashlib.sha256(packages.encode()).hexdigest()
        release = folder / "Release"
        release.write_text(f"Origin: test\nSuite: test\nSHA256:\n {digest} {len(packages.encode())} Packages\n")
        self.key.sign(release)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """pytest's output is no place for an access log."""
