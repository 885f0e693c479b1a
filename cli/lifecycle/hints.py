"""What to do about a host that SSH cannot reach: one line each, from pulumi's event log.

Pulumi's command provider reports what went wrong (`after 8 failed attempts: dial tcp 192.168.56.10:22: connect:
connection refused`), not what to do. Its messages are those of pulumi-command 1.2.1 and golang.org/x/crypto/ssh.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.spec import names

AUTHORISE = "add the public half of the key to ~/.ssh/authorized_keys there, or correct the user and privateKeyFile"
KNOWN = "if it is the right machine, put the line of its /etc/ssh/ssh_host_ed25519_key.pub into the stack file"

# (pattern, what it means, fix); the first match counts. A message starts with `proxy: ` if it is about the connection
# to the jump host, or from there to the host.
MEANINGS = [
    (r"administratively prohibited", "the jump host does not forward connections",
     "set AllowTcpForwarding yes in its sshd_config, or take another jump host"),
    (r"rejected: connect failed", "the jump host cannot reach it",
     "start it, and open its SSH port to the jump host"),
    (r"proxy: .*host key mismatch", "it, or the jump host, shows another host key than the pinned one", KNOWN),
    (r"host key mismatch", "it shows another host key than the pinned one", KNOWN),
    (r"proxy: .*unable to authenticate", "it, or the jump host, refuses the key", AUTHORISE),
    (r"unable to authenticate", "it refuses the key", AUTHORISE),
    (r"lookup (?P<where>\S+?)(:| on ).*no such host", "the name {where} cannot be resolved", "correct the host name"),
    (r"proxy: .*dial tcp (?P<where>\S+): ", "the jump host does not answer at {where}",
     "start it, correct its address and port, or open the port to this computer"),
    (r"dial tcp (?P<where>\S+): ", "it does not answer at {where}",
     "start it, correct its address and port, or open its SSH port to this computer"),
]  # fmt: skip


def hints(event_log: Path) -> list[str]:
    """`NODE: what happened. Fix: …` for each node that SSH cannot reach. The event log may be absent."""
    return list(dict.fromkeys(_hints(event_log)))


def _hints(event_log: Path) -> Iterator[str]:
    nodes: dict[str, str] = {}  # by the URN of a step, and of the command in it
    for event in _events(event_log):
        state = _state(event)
        if state.get("type") == names.STEP:
            nodes[state["urn"]] = state["inputs"]["node"]
        elif state.get("parent") in nodes:
            nodes[state["urn"]] = nodes[state["parent"]]
        diagnostic = event.get("diagnosticEvent", {})
        node = nodes.get(diagnostic.get("urn"))
        if diagnostic.get("severity") == "error" and node and (meaning := meaning_of(diagnostic["message"])):
            yield f"{node}: {meaning}"


def meaning_of(message: str) -> str | None:
    """What an error of a remote command means, with its fix; None if it is not about the connection."""
    if not re.match(r"(proxy: )?(after \d+ failed attempts|dial tcp|ssh: )", message):
        return None
    for pattern, problem, fix in MEANINGS:
        if found := re.search(pattern, message):
            return f"{problem.format(**found.groupdict())}. Fix: {fix}; then run the same command again"
    return None


def _events(event_log: Path) -> Iterator[dict[str, Any]]:
    if event_log.is_file():
        with event_log.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _state(event: dict[str, Any]) -> dict[str, Any]:
    """The resource of an event: its new state, or its old one if it is deleted."""
    metadata = event.get("resourcePreEvent", {}).get("metadata", {})
    state: dict[str, Any] = metadata.get("new") or metadata.get("old") or {}
    return state
