"""What a real packet of a reading met: the output of ping, and of an attempt at a TCP connection."""

from __future__ import annotations

import re

from components.verify.model import Entry


def ping(output: str) -> Entry:
    """ping's output. Fields: received (yes, no), and the answer's ttl."""
    answer = re.search(r"^.*\bttl=(\d+).*$", output, re.MULTILINE | re.IGNORECASE)
    if answer:
        return Entry({"received": "yes", "ttl": answer[1]}, answer[0].strip())
    lines = [line for line in output.splitlines() if line.strip()]
    shown = next((line for line in lines if "packet loss" in line), lines[-1] if lines else "no answer")
    return Entry({"received": "no"}, shown.strip())


def connection(output: str, address: str, port: str) -> Entry:
    """An attempt at a TCP connection. Fields: received (yes, no, refused); endpoint (ADDRESS:PORT) where conntrack
    knows that another address answered for this one."""
    first = output.partition("\n")[0].strip()
    if first != "connected":
        refused = "refused" in output
        reason = next((line for line in output.splitlines() if "/dev/tcp/" in line), first)
        shown = reason.rpartition(": ")[2].strip() or "no answer within 3 s"
        return Entry({"received": "refused" if refused else "no"}, f"{address}:{port}: {shown}")
    fields, shown = {"received": "yes"}, f"connected to {address}:{port}"
    own = _local_port(output, address, int(port))
    for line in output.splitlines():
        found = re.search(r"\bsport=(\d+) dport=\d+ .*?src=(\S+) dst=\S+ sport=(\d+) ", line)
        if found and found[1] == own:
            if found[2] != address:
                fields["endpoint"] = f"{found[2]}:{found[3]}"
            shown += f"; conntrack: {' '.join(line.split())}"
    return Entry(fields, shown)


def _local_port(table: str, address: str, port: int) -> str:
    """This end's port of the newest connection to an address, from /proc/net/tcp; empty where there is none."""
    remote = "".join(f"{int(part):02X}" for part in reversed(address.split("."))) + f":{port:04X}"
    # The columns are: number, local, remote, state (01: established).
    rows = [words for line in table.splitlines() if len(words := line.split()) > 4]
    found = [words[1].rpartition(":")[2] for words in rows if words[2].upper() == remote and words[3] == "01"]
    return str(int(found[-1], 16)) if found else ""
