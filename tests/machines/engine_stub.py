#!/usr/bin/env python3
"""A stand-in for podman, docker and the other programs that the local scripts call, as far as the scripts use them.

Called by the name of the tool it stands in for. STUB is a folder: `calls` gets one JSON array a call, `state.json`
holds what exists, and a file `fail-<words joined by ->`, e.g. `fail-podman-start`, makes such a call fail with that
text; `say-<words>` makes it answer with that text, and `sleep-<words>` makes it take so many seconds. A file `stops`
makes every container stop at once; it holds the exit status, whether it was out of memory, and the engine's error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

STUB = Path(os.environ["STUB"])
STATE = STUB / "state.json"
STOPS = STUB / "stops"
FLAGS = {"--all", "--detach", "--force", "--volumes", "--interactive", "--privileged", "--disable-dns", "--quiet", "-"}


def parse(words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The positional arguments, and the options by name. Knows `--key=value`, `--key value` and the flags above."""
    plain: list[str] = []
    options: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("--") or word in FLAGS:
            plain += [word] if not word.startswith("--") else []
        elif "=" in word:
            options.setdefault(word.partition("=")[0], []).append(word.partition("=")[2])
        else:
            options.setdefault(word, []).append(next(rest))
    return plain, options


def labels(options: dict[str, list[str]]) -> dict[str, str]:
    return dict(label.split("=", 1) for label in options.get("--label", []))


def main(tool: str, words: list[str]) -> int:
    with (STUB / "calls").open("a") as calls:
        calls.write(json.dumps([tool, *words]) + "\n")
    for length in range(len(words), 0, -1):
        failing = STUB / "-".join(["fail", tool, *words[:length]]).replace("/", "_")
        if len(failing.name) < 200 and failing.exists():
            print(failing.read_text(), file=sys.stderr)
            return 125
    for length in range(1, len(words) + 1):
        slow = STUB / "-".join(["sleep", tool, *words[:length]]).replace("/", "_")
        if len(slow.name) < 200 and slow.exists():
            time.sleep(float(slow.read_text()))
    said = [STUB / "-".join(["say", tool, *words[:length]]) for length in range(1, 4)]
    if found := next((file for file in said if file.exists()), None):
        print(found.read_text(), end="")
        return 0
    if tool == "ssh-keyscan":
        print(f"{words[-1]} {os.environ['STUB_HOST_KEY']}")
        return 0
    if tool not in ("podman", "docker"):
        if tool == "nft":
            (STUB / "rules").write_text(sys.stdin.read())
        return 0
    state: dict[str, dict[str, Any]] = (
        json.loads(STATE.read_text()) if STATE.exists() else {"container": {}, "volume": {}, "network": {}}
    )
    done = engine(state, words)
    STATE.write_text(json.dumps(state))
    return done


def engine(state: dict[str, dict[str, Any]], words: list[str]) -> int:
    plain, options = parse(words)
    kind = plain[0] if plain[0] in state else "container"
    things = state[kind]
    match plain:
        case [("container" | "volume" | "network"), "ls"] | ["ps"]:
            wanted = [f.removeprefix("label=") for f in options.get("--filter", []) if f.startswith("label=")]
            on = [f.removeprefix("network=") for f in options.get("--filter", []) if f.startswith("network=")]
            for name, thing in things.items():
                has = [f"{k}={v}" for k, v in thing["labels"].items()]
                if all(w in has for w in wanted) and all(thing.get("network") == n for n in on):
                    print(name)
        case [("volume" | "network"), "create", name]:
            things[name] = {"labels": labels(options)}
        case ["create", *_]:
            name = options["--name"][0]
            network = options["--network"][0]
            address = options.get("--ip", [""])[0]
            things[name] = {"labels": labels(options), "network": network, "address": address, "running": "false"}
        case ["start", name]:
            things[name]["running"] = "false" if STOPS.exists() else "true"
        case ["stop", *_, name]:
            things[name]["running"] = "false"
        case [_, "inspect", name]:
            if name not in things and plain[0] != "image":
                print(f"Error: no such {kind} {name}", file=sys.stderr)
                return 1
            shown = options["--format"][0]
            if "cni-lab.stack" in shown:
                own = things[name]["labels"]
                print(own.get("cni-lab.stack", ""), own.get("cni-lab.owner", ""))
            elif "IPAddress" in shown:
                print(things[name]["address"], "")
            elif "ExitCode" in shown:
                print(STOPS.read_text())
            else:
                running = things.get(name, {}).get("running", "true")
                print({"{{.State.Running}}": running, "{{.NetworkInterface}}": "podman7"}.get(shown, f"id-of-{name}"))
        case ["exec", _, "systemctl", "is-system-running"]:
            print("running")
        case ["exec", _, "cat", "/proc/1/status"]:
            print(Path("/proc/self/status").read_text(), end="")
        case ["exec", *_]:
            (STUB / "stdin").write_text(sys.stdin.read())
        case ["rm", name] | ["volume" | "network", "rm", name]:
            del things[name]
        case _:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[0]).name, sys.argv[1:]))
