"""`./lab pin calico VERSION`: fetches a release's manifests, shows what it pins, and writes stacks/pins.yaml.

A lab installs only manifests whose checksums are known. Somebody has to look at a new release once; this command makes
that a difference in one file, which is reviewed and committed like any other.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import yaml

from cli.errors import FAILED, USAGE, CommandError
from cli.pin.fetch import fetch
from cli.project import stack_file
from components.spec import versions
from components.spec.document import read_document
from components.spec.findings import SpecError
from components.spec.load import LAB_KEY, load_stack_file
from components.spec.models.mirrors import Mirrors
from components.spec.own_yaml import SafeLoader
from components.spec.versions import CalicoRelease, Manifest, Pins, PinsError, numbers

HEAD = """\
# Releases that `./lab pin` fetched: the checksums of their manifests. A lab installs no manifest of another content.
# docs/versions.md says how to review an entry.
"""
_ARCHITECTURES = ("amd64", "arm64")


def pin(part: str, version: str, *, stack: str | None) -> int:
    """Pin a release. Returns 0. Raises CommandError."""
    version = version.removeprefix("v")
    if not re.fullmatch(r"\d{1,3}\.\d{1,3}\.\d{1,3}", version):
        raise CommandError(f"{version!r} is not a whole version: write e.g. {versions.DEFAULT_CALICO}", USAGE)
    if part == "multus":
        print(
            "Multus needs no pin: of a release the lab uses the image alone, by its tag. "
            f"Write multus.version: {version} into the stack file"
        )
        return 0
    if part != "calico":
        raise CommandError(f"there is nothing to pin of {part!r}: write calico or multus", USAGE)
    if numbers(version) < numbers(versions.OLDEST_CALICO):
        raise CommandError(f"Calico {version} is earlier than {versions.OLDEST_CALICO}, the oldest supported", USAGE)
    shipped = versions.CALICO.get(version)
    if shipped is not None and shipped.calicoctl:
        print(f"Calico {version} is pinned in components/spec/versions.yaml; there is nothing to do")
        return 0
    try:
        known = versions.pins()
    except PinsError as error:
        raise CommandError(f"{error}: correct the file first", USAGE) from None
    mirrors = _mirrors(stack)
    release = calico_release(version, mirrors)
    _show(version, release)
    if shipped is not None and not shipped.sha256.items() <= release.sha256.items():
        raise CommandError(
            "components/spec/versions.yaml has other checksums of this release, and a release does not change: the "
            "mirror serves something else. Fetch it from another source (--stack names a stack with mirrors)",
            FAILED,
        )
    earlier = known.calico.get(version)
    if earlier is not None and (earlier.sha256, earlier.calicoctl) != (release.sha256, release.calicoctl):
        raise CommandError(
            "stacks/pins.yaml has other checksums of this release, and a release does not change: find out which are "
            "right. To take these, remove the entry there and repeat",
            FAILED,
        )
    _write(Pins(calico={**known.calico, version: release}))
    print("\nwritten to stacks/pins.yaml. Look at it: git diff stacks/pins.yaml")
    if shipped is None:
        print(f"Then write calico.version: {version} into a stack file.")
    if release.calicoctl:
        print("Labs with this version also get calicoctl on their control planes.")
    return 0


def calico_release(version: str, mirrors: Mirrors) -> CalicoRelease:
    """What there is to pin of a release of Calico, fetched from its mirrors. Raises CommandError."""
    base = f"{mirrors.calico_manifests}/v{version}/manifests"
    if not base.startswith("https:"):
        print(f"lab pin: {base} is not read over https: compare the checksums with another source", file=sys.stderr)
    sums: dict[Manifest, str] = {}
    operator = ""
    for name in get_args(Manifest):
        content = fetch(f"{base}/{name}")
        if content is None:
            if name in ("v1_crd_projectcalico_org.yaml", "tigera-operator.yaml"):
                raise CommandError(f"{base}/{name} does not exist: is there a release {version} of Calico?", FAILED)
            print(f"lab pin: {base}/{name} does not exist; calico.install: manifest may not work", file=sys.stderr)
            continue
        text = content.decode("utf-8", errors="replace")
        _check(name, text, f"{base}/{name}")
        if name == "tigera-operator.yaml":
            operator = _operator(text, f"{base}/{name}")
        elif name.startswith("calico") and f":v{version}" not in text:
            raise CommandError(f"{base}/{name} names no image of v{version}: the mirror serves another release", FAILED)
        sums[name] = hashlib.sha256(content).hexdigest()
    return CalicoRelease(
        pinned=datetime.now(UTC).date(), operator=operator, sha256=sums, calicoctl=_calicoctl(version, mirrors)
    )


def _check(name: str, text: str, url: str) -> None:
    """A manifest is YAML with Kubernetes objects; a page of a proxy that asks for a login is not."""
    try:
        objects = [found for found in yaml.load_all(text, Loader=SafeLoader) if found is not None]
    except yaml.YAMLError as error:
        raise CommandError(f"{url} is not YAML: {' '.join(str(error).split())[:200]}", FAILED) from None
    if not objects or not all(isinstance(found, dict) and found.keys() >= {"apiVersion", "kind"} for found in objects):
        raise CommandError(f"{url} holds no Kubernetes objects: {name} is expected there", FAILED)


def _operator(text: str, url: str) -> str:
    found = re.findall(r"\bimage:\s*\S*tigera/operator:v(\d+\.\d+\.\d+)\s", text)
    if len(set(found)) != 1:
        raise CommandError(f"{url} names no version of the image tigera/operator, or several", FAILED)
    return str(found[0])


def _calicoctl(version: str, mirrors: Mirrors) -> dict[str, str]:
    """calicoctl's checksums from the release's SHA256SUMS. Without them calicoctl is not installed."""
    url = f"{mirrors.calicoctl}/v{version}/SHA256SUMS"
    try:
        content = fetch(url)
    except CommandError as error:
        content = None
        print(f"lab pin: {error}", file=sys.stderr)
    lines = (content or b"").decode("utf-8", errors="replace").splitlines()
    listed = {name.lstrip("*./"): total for total, _, name in (line.strip().partition("  ") for line in lines)}
    found = {arch: listed.get(f"calicoctl-linux-{arch}", "").lower() for arch in _ARCHITECTURES}
    found = {arch: total for arch, total in found.items() if re.fullmatch(r"[0-9a-f]{64}", total)}
    if not found:
        print(f"lab pin: {url} has no checksum of calicoctl; it will not be installed", file=sys.stderr)
    return found


def _mirrors(stack: str | None) -> Mirrors:
    """The mirrors of a stack file. Its version of Calico may be one that is not pinned yet.

    Any other finding is raised: a misspelt mirror would silently be passed over.
    """
    if stack is None:
        return Mirrors()
    path = stack_file(stack)
    try:
        return load_stack_file(path).lab.mirrors
    except SpecError as error:
        others = [finding for finding in error.findings if finding.key != "calico.version"]
        if others:
            raise SpecError(others, path.name) from None
    document, _, _ = read_document(path)
    return Mirrors.model_validate(document["config"][LAB_KEY].get("mirrors", {}))


def _show(version: str, release: CalicoRelease) -> None:
    print(f"Calico {version}")
    print(f"  operator: {release.operator}")
    for name, total in release.sha256.items():
        print(f"  {name}: {total}")
    for arch, total in release.calicoctl.items():
        print(f"  calicoctl-linux-{arch}: {total}")


def _write(pins: Pins) -> None:
    entries = {
        version: release.model_dump(exclude_defaults=True)
        for version, release in sorted(pins.calico.items(), key=lambda entry: numbers(entry[0]))
    }
    text = HEAD + yaml.safe_dump({"calico": entries}, sort_keys=False)
    draft = Path(f"{versions.PINS}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(versions.PINS)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise CommandError(f"{versions.PINS} cannot be written: {error.strerror or error}", FAILED) from None
