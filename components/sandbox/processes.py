"""The machines of a sandbox among the processes of this computer. The standard library is all that is needed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def machine_pids(holder: int, nodes: Iterable[str]) -> dict[str, int]:
    """Node → process 1 of its machine, as /proc numbers it, among the descendants of `holder`. A node without one is
    left out."""
    parents: dict[int, int] = {}
    candidates: dict[int, str] = {}
    wanted = set(nodes)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
            status = Path(entry.path, "status").read_text(errors="replace")
        except OSError:  # it ended
            continue
        pid = int(entry.name)
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        parents[pid] = int(fields["PPid"])
        # The machine's own process, not what it started.
        if words[2:3] == [b"node"] and words[0] == b"bash" and fields.get("NSpid", "").split()[-1:] == ["1"]:
            candidates[pid] = words[4].decode()
    found = {}
    for pid, node in candidates.items():
        above = pid
        while above in parents and above != holder:
            above = parents[above]
        if above == holder and node in wanted:
            found[node] = pid
    return found
