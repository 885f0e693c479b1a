"""Signed package repositories like those of pkgs.k8s.io and download.opensuse.org, served to the test hosts.

The packages are stand-ins with the real names and versions: programs that print their version, and a CRI-O whose unit
runs and can be reloaded. If CNILAB_DEBS names a folder of real packages, those are served: each minor's repository has
its own versions, of CRI-O too if there is one, and all have the packages without a minor.
"""

from __future__ import annotations

import hashlib
import http
import http.server
import os
import posixpath
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from components.spec.versions import numbers

UNIT = "[Service]\nExecStart=/usr/bin/{0} --run\nExecReload=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
# By minor, the versions of the stand-ins.
VERSIONS = {"1.34": ["1.34.4"], "1.35": ["1.35.4"], "1.36": ["1.36.2", "1.36.3"]}
PROGRAM = """#!/bin/sh
case $1 in
  --run) exec sleep infinity ;;
  --runtime-endpoint) exec systemctl is-active crio ;;
  *) echo "@NAME@ v@VERSION@" ;;
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
    """`kubernetes` and `crio`: base URLs as in the stack file. Both repositories are signed by `key`."""

    def __init__(
        self, root: Path, address: str, programs: Mapping[str, str] | None = None, real: Path | None = None
    ) -> None:
        """`programs`: by name, stand-ins that do more. They have @VERSION@ in place of their version. `real`: a folder
        of real packages, else that of CNILAB_DEBS; each minor of a kubelet there also has a repository."""
        self.root, self.programs = root, programs or {}
        self.requests: list[str] = []
        """The path of each file that was sent."""
        self.key = Key.make(root / "gnupg")
        self.stranger = Key.make(root / "stranger")
        handler = partial(_Recording, self.requests, directory=str(root / "www"))
        self._server = http.server.ThreadingHTTPServer((address, 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.base = f"http://{address}:{self._server.server_port}"
        self.kubernetes, self.crio = f"{self.base}/core", f"{self.base}/crio"
        if real is None and "CNILAB_DEBS" in os.environ:
            real = Path(os.environ["CNILAB_DEBS"])
        for minor, versions in (VERSIONS | _minors_of(real)).items():
            for name in ("core", "crio"):
                self.folder(name, minor).mkdir(parents=True)
                (self.folder(name, minor) / "Release.key").write_text(self.key.public())
            if real:
                self._serve(real, minor)
            else:
                for version in versions:
                    for name in ("kubelet", "kubeadm", "kubectl"):
                        self._deb(self.folder("core", minor), name, version, name)
                    self._deb(self.folder("crio", minor), "cri-o", version, "crio")
                self._deb(self.folder("core", minor), "cri-tools", "1.36.0", "crictl")
                self._deb(self.folder("core", minor), "kubernetes-cni", "1.9.1", "")
            for name in ("core", "crio"):
                self._index(self.folder(name, minor))

    def folder(self, name: str, minor: str = "1.36") -> Path:
        return self.root / "www" / name / f"v{minor}" / "deb"

    def crio_version(self, minor: str) -> str:
        """The last version of CRI-O that the repository of a minor has."""
        found = [deb.name.split("_")[1].partition("-")[0] for deb in self.folder("crio", minor).glob("cri-o_*.deb")]
        return max(found, key=numbers)

    def _serve(self, real: Path, minor: str) -> None:
        versioned = ["kubelet", "kubeadm", "kubectl"]
        if list(real.glob(f"cri-o_{minor}.*.deb")):
            versioned.append("cri-o")
        for deb in sorted(real.glob("*.deb")):
            name, version, _ = deb.name.split("_")
            if name not in versioned or version.startswith(f"{minor}."):
                shutil.copy(deb, self.folder("crio" if name == "cri-o" else "core", minor))

    def close(self) -> None:
        self._server.shutdown()
        for key in (self.key, self.stranger):
            subprocess.run(["gpgconf", "--homedir", str(key.home), "--kill", "all"], check=True)

    def _deb(self, folder: Path, name: str, version: str, program: str) -> None:
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
            path.write_text(
                self.programs.get(program, PROGRAM).replace("@NAME@", program).replace("@VERSION@", version)
            )
            path.chmod(0o755)
        if program in ("crio", "kubelet"):
            unit = tree / "usr" / "lib" / "systemd" / "system" / f"{program}.service"
            unit.parent.mkdir(parents=True)
            unit.write_text(UNIT.format(program))
        target = folder / f"{name}_{version}-1.1_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(target)], check=True, capture_output=True
        )

    def _index(self, folder: Path) -> None:
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


def _minors_of(real: Path | None) -> dict[str, list[str]]:
    """The minors of the kubelets in a folder of packages, without stand-ins."""
    found = real.glob("kubelet_*.deb") if real is not None else ()
    return {".".join(deb.name.split("_")[1].split(".")[:2]): [] for deb in found}


class _Recording(http.server.SimpleHTTPRequestHandler):
    """Records what it sends, and prints nothing, because pytest would show it as a test's output."""

    def __init__(self, requests: list[str], *args: Any, **keys: Any) -> None:
        self._requests = requests
        super().__init__(*args, **keys)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if code == http.HTTPStatus.OK and self.command == "GET":
            # apt asks for the `Filename: ./…` of an index.
            self._requests.append(posixpath.normpath(self.path))

    def log_message(self, *_: object) -> None:
        """Nothing: errors are the client's to show."""
