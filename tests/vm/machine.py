"""The virtual machine for tests: Debian 12 with its own kernel, which has what a host's kernel may lack.

    run("python3 -m pytest -q tests/sandbox", timeout_seconds=600)

The machine gets a copy of the checkout, runs one shell command in it as root, and is gone. It has no network.
`build.sh` makes its disk; `run-command.sh` is what runs in it. With KVM a boot takes seconds, in software about a
minute.

CNILAB_VM: the folder with the disk (default .lab/vm, if there is one; for tests only with KVM). CNILAB_SLOWDOWN: a
factor for every limit on time (components/slowdown.py), here and in the machine. Without KVM it is multiplied by ten.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from components.slowdown import MAXIMUM, VARIABLE, factor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
QEMU = "qemu-system-x86_64"
HINT = "CNILAB_VM runs this test in a virtual machine that can (docs/contributing.md)"
"""For the message of a test that is skipped because the host's kernel lacks something."""

BOOT_SECONDS = 60
"""The longest time from the start of qemu to the command, with KVM."""


@dataclass(frozen=True)
class Result:
    """`code`: of the command; None if it did not end in time, or the machine did not start."""

    code: int | None
    output: str
    console: str


def folder() -> Path:
    return Path(os.environ.get("CNILAB_VM") or ROOT / ".lab" / "vm")


def missing() -> str | None:
    """Why no virtual machine can run here, and what to do; None if one can."""
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed (apt-get install qemu-system-x86)"
    if not (folder() / "stamp").is_file():
        return f"{folder()} has no disk of a virtual machine: run tests/vm/build.sh"
    stamp = subprocess.run([HERE / "stamp.sh"], capture_output=True, text=True, check=True, timeout=60).stdout
    if (folder() / "stamp").read_text() != stamp:
        return f"the disk in {folder()} was made from other files than these: run tests/vm/build.sh"
    return None


def unasked() -> str | None:
    """Why tests do not start one by themselves here: in software each takes minutes."""
    if os.environ.get("CNILAB_VM") or has_kvm():
        return None
    return f"without KVM each of these takes minutes: CNILAB_VM={folder()} runs them nevertheless"


@cache
def has_kvm() -> bool:
    """Whether the processor runs the machine. A /dev/kvm without the processor's help (nested, in software) was seen to
    need minutes for what qemu's own translation does in seconds."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    helped = flags is not None and not {"vmx", "svm"}.isdisjoint(flags[1].split())
    return helped and os.access("/dev/kvm", os.R_OK | os.W_OK)


def slowdown() -> int:
    """The factor for every limit on time, also in the machine. Without KVM a test takes about ten times as long."""
    return min(factor() * (1 if has_kvm() else 10), MAXIMUM)


def run(command: str, *, timeout_seconds: float) -> Result:
    """Boot a machine, run a shell command in the checkout, and switch it off. `timeout_seconds`: for the command on a
    computer with KVM."""
    limit = (BOOT_SECONDS + timeout_seconds) * slowdown()
    with tempfile.TemporaryDirectory(prefix="cnilab-vm-") as made:
        work = Path(made)
        _pack(work / "checkout.tar", f"export {VARIABLE}={slowdown()}\n{command}")
        console, output = work / "console", work / "output"
        try:
            subprocess.run(
                _qemu(work / "checkout.tar", console, output),
                check=True,
                capture_output=True,
                text=True,
                timeout=limit,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.CalledProcessError as error:
            return Result(None, _text(output), f"{_text(console)}\n{error.stderr}")
        except subprocess.TimeoutExpired:
            return Result(None, _text(output), f"{_text(console)}\nnot done after {limit:.0f} s")
        # systemd may print a line after it.
        text, code = _text(output), None
        if ended := re.search(r"^vm-command: exit (\d+)$", text, re.MULTILINE):
            text, code = text[: ended.start()], int(ended[1])
        return Result(code, text, _text(console))


def _qemu(checkout: Path, console: Path, output: Path) -> list[str]:
    disk = folder()
    return [
        *(QEMU, "-accel", "kvm" if has_kvm() else "tcg,thread=multi", "-cpu", "max"),
        *("-smp", "2", "-m", "2048", "-no-reboot", "-display", "none", "-nic", "none", "-monitor", "none"),
        *("-kernel", f"{disk}/kernel", "-initrd", f"{disk}/initrd"),
        *("-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1"),
        # What the machine writes is gone with it.
        *("-drive", f"file={disk}/disk,if=virtio,format=raw,snapshot=on"),
        *("-drive", f"file={checkout},if=virtio,format=raw,readonly=on"),
        *("-serial", f"file:{console}", "-serial", f"file:{output}", "-device", "virtio-rng-pci"),
    ]


def _pack(target: Path, command: str) -> None:
    """The checkout as it is now, with files that are not committed, and the command."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    with tarfile.open(target, "w") as archive:
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).exists():
                archive.add(ROOT / name, name)
        script = f"{command}\n".encode()
        entry = tarfile.TarInfo("vm-command")
        entry.size = len(script)
        archive.addfile(entry, BytesIO(script))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def main() -> int:
    """`python -m tests.vm.machine COMMAND`: a command in a machine, for a person."""
    if reason := missing():
        print(reason, file=sys.stderr)
        return 3
    result = run(" ".join(sys.argv[1:]), timeout_seconds=1800)
    print(result.output, end="")
    if result.code is None:
        print(result.console, file=sys.stderr)
    return 1 if result.code is None else result.code


if __name__ == "__main__":
    sys.exit(main())
