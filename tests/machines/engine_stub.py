#!/usr/bin/env python3
"""A stand-in for podman, docker and the other programs that the local scripts call, as far as the scripts use them.

Called by the name of the tool it stands in for. STUB is a folder: `calls` gets a marshalled list for each call, `state`
holds what exists, marshalled too, and a file `fail-<words joined by ->`, e.g. `fail-podman-start`, makes such a call
fail with that text; `say-<words>` makes it answer with that text, and `sleep-<words>` makes it take so many seconds. A
file `stops` makes every container stop at once; it holds the exit status, whether it was out of memory, and the
engine's error.

The tests start it hundreds of times, so it imports only what is in the interpreter: with `json` and `pathlib` a call
would take twice as long.
"""
# ruff: noqa: PTH110, PTH119, PTH123

from __future__ import annotations

import marshal
import os
import sys
import time

STUB = os.environ["STUB"]
STATE = f"{STUB}/state"
STOPS = f"{STUB}/stops"
State = dict[str, dict[str, dict[str, object]]]
"""By kind and name: labels, and of a container its network, its address and whether it runs."""
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


def read(file: str) -> str:
    with open(file) as text:
        return text.read()


def write(file: str, text: str) -> None:
    with open(file, "w") as new:
        new.write(text)


def asked(kind: str, words: list[str]) -> str | None:
    """The text of the file that a test has made for such a call; None if there is none."""
    name = "-".join([kind, *words]).replace("/", "_")
    return read(f"{STUB}/{name}") if len(name) < 200 and os.path.exists(f"{STUB}/{name}") else None


def main(tool: str, words: list[str]) -> int:
    call = [tool, *words]
    with open(f"{STUB}/calls", "ab") as calls:
        calls.write(marshal.dumps(call))
    for length in range(len(call), 1, -1):
        if (text := asked("fail", call[:length])) is not None:
            print(text, file=sys.stderr)
            return 125
    for length in range(2, len(call) + 1):
        if (text := asked("sleep", call[:length])) is not None:
            time.sleep(float(text))
    for length in range(2, 5):
        if (text := asked("say", call[:length])) is not None:
            print(text, end="")
            return 0
    if tool == "ssh-keyscan":
        print(f"{words[-1]} {os.environ['STUB_HOST_KEY']}")
        return 0
    if tool not in ("podman", "docker"):
        if tool == "nft":
            write(f"{STUB}/rules", sys.stdin.read())
        return 0
    state: State = {"container": {}, "volume": {}, "network": {}}
    if os.path.exists(STATE):
        with open(STATE, "rb") as file:
            state = marshal.load(file)
    done = engine(state, words)
    with open(STATE, "wb") as file:
        marshal.dump(state, file)
    return done


def engine(state: State, words: list[str]) -> int:
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
            things[name]["running"] = "false" if os.path.exists(STOPS) else "true"
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
                print(read(STOPS))
            else:
                running = things.get(name, {}).get("running", "true")
                print({"{{.State.Running}}": running, "{{.NetworkInterface}}": "podman7"}.get(shown, f"id-of-{name}"))
        case ["exec", _, "systemctl", "is-system-running"]:
            print("running")
        case ["exec", _, "cat", "/proc/1/status"]:
            print(read("/proc/self/status"), end="")
        case ["exec", *_]:
            write(f"{STUB}/stdin", sys.stdin.read())
        case ["rm", name] | ["volume" | "network", "rm", name]:
            del things[name]
        case _:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main(os.path.basename(sys.argv[0]), sys.argv[1:]))
