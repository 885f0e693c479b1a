"""Process 1 of a sandbox: serves the API, starts the machines, and takes all of them with it when it ends.

    unshare --pid --fork --kill-child --mount --mount-proc -- python -IS holder.py DIRECTORY

It is in this computer's network namespace, so that the API can be reached, and in a PID namespace of its own: however
it ends, and however `unshare` ends, the kernel ends every process of the sandbox, and with the last process of a
namespace go its interfaces and mounts.

Standard output has one line for each event: "api URL", "ready", or "failed REASON". Until standard input has brought
the line "stay", its end ends the sandbox: a command that was killed leaves none behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384
_MS_OPTIONS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21}
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture but alpha
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_libc = ctypes.CDLL(None, use_errno=True)


def say(text: str) -> None:
    """One line to whoever started the sandbox; nobody may listen any more."""
    with contextlib.suppress(OSError):
        print(" ".join(text.split()), flush=True)


def _mount(source: str, target: Path, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [source.encode(), str(target).encode(), kind and kind.encode(), flags, data and data.encode()]
    if _libc.mount(*words):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def show_computer(directory: Path) -> None:
    """Mount DIRECTORY/mnt/host: this computer's files, read-only with all that is mounted in them."""
    view = directory / "mnt"
    view.mkdir(exist_ok=True)
    _mount("tmpfs", view, "tmpfs", 0, "mode=0755")
    host = view / "host"
    host.mkdir()
    _mount("/", host, None, _MS_BIND | _MS_REC)
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = ctypes.c_char_p(str(host).encode())
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, ctypes.byref(attributes), size) == 0:
        return
    # Linux before 5.12: one mount after the other.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        target = fields[4].encode().decode("unicode_escape")
        if target == str(host) or target.startswith(f"{host}/"):
            # A user namespace may not take away what the mount is restricted by already.
            kept = sum(flag for option, flag in _MS_OPTIONS.items() if option in fields[5].split(","))
            _mount("none", Path(target), None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept)


def _watch_input() -> None:
    while line := sys.stdin.readline():
        if line.strip() == "stay":
            return
    os._exit(0)


def _watch_machines(router: subprocess.Popen[str], settings: Mapping[str, Any], served: Any) -> None:
    assert router.stdout is not None
    for line in router.stdout:
        if line.strip() == "ready":
            try:
                _serve_services(settings, served)
            except OSError as error:
                say(f"failed {error}")
                continue
        say(line)


def _serve_services(settings: Mapping[str, Any], served: Any) -> None:
    """Let pods listen behind the Services, and a changed Service change the nodes' rules. Raises OSError."""
    from components.sandbox.controller import Controller
    from components.sandbox.listeners import Listener, listen
    from components.sandbox.processes import machine_pids

    pids = machine_pids(os.getpid(), settings["nodes"])
    listen(
        [
            Listener(
                f"/proc/{pids[node]}/root/run/netns/{netns}" if netns else f"/proc/{pids[node]}/ns/net", port, name
            )
            for node, netns, port, name in settings["listeners"]
        ]
    )
    controller = Controller(
        served.objects,
        {node: f"/proc/{pid}/ns/net" for node, pid in pids.items()},
        tool=settings["tool"],
        pod_cidr=settings["podCidr"],
        service_cidr=settings["serviceCidr"],
    )
    served.patch_service = controller.patch


def main(directory: Path) -> int:
    # Only modules that need no more than the standard library.
    sys.path.insert(0, str(HERE.parents[1]))
    from components.sandbox.api import Api

    os.umask(0o022)
    threading.Thread(target=_watch_input, daemon=True).start()
    try:
        settings = json.loads((directory / "settings.json").read_text())
        served = Api(
            json.loads((directory / "objects.json").read_text()), directory / "ca.crt", directory / "apiserver.pem"
        )
        say(f"api {served.url}")
        show_computer(directory)
        command = ["unshare", "--net", "--mount", "--uts", "--", "bash", str(HERE / "machine.sh")]
        command += ["router", str(directory)]
        router = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        say(f"failed {error}")
        return 1
    threading.Thread(target=_watch_machines, args=(router, settings, served), daemon=True).start()
    # Process 1 reaps every orphan of its namespace.
    while True:
        pid, _ = os.wait()
        if pid == router.pid:
            log = (directory / "log").read_text(errors="replace").strip().splitlines()
            say(f"failed {' '.join(log[-3:]) or 'the router ended'}")
            return 1


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    # Not sys.exit: threads are left to the kernel.
    os._exit(code)
