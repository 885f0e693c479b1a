"""Stand-in for `journalctl --unit crio` on a sandbox's node, which has neither systemd nor CRI-O.

It prints what CRI-O would have logged. At each call it reads /etc/cni/net.d as ocicni does: files by name, of .conf,
.conflist and .json, and of these the first that parses, names a network and has its plugins. Where that makes another
default network than the last one, the log grows by a line; so a file that is taken away changes what the log says.

Options: -u/--unit, -b/--boot, -q, --no-pager, -o/--output, -n/--lines, -r, -g/--grep, --show-cursor, --after-cursor. As
with systemd's, only --grep makes "no entries" exit status 1. It needs Python 3 and no package. journalctl.sh runs it.
"""

import argparse
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

LOG = Path("/var/log/sandbox-crio.log")
SEEN = Path("/var/log/sandbox-crio.seen")
"""Its time of modification: the log is right about every file that has not changed since."""
DIRECTORY = Path("/etc/cni/net.d")
PLUGINS = Path("/opt/cni/bin")


def default_network() -> tuple[str, list[str]]:
    """The default network's name, empty where there is none, and what is wrong with the files before it."""
    complaints: list[str] = []
    for path in sorted(DIRECTORY.glob("*")) if DIRECTORY.is_dir() else []:
        if path.suffix not in {".conf", ".conflist", ".json"}:
            continue
        try:
            config = json.loads(path.read_text())
            plugins = [p["type"] for p in config.get("plugins", [config])]
            name = config["name"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            complaints.append(f"Error loading CNI config file {path}: {error}")
            continue
        missing = [plugin for plugin in plugins if not (PLUGINS / plugin).is_file()]
        if missing:
            complaints.append(f"Error validating CNI config file {path}: [failed to find plugin {missing[0]!r}]")
            continue
        return name, complaints
    return "", complaints


def refresh() -> list[str]:
    """The log's lines, brought up to date with the directory."""
    # The kernel's clock of file changes is up to 10 ms behind.
    began = time.time_ns() - 20_000_000
    lines = LOG.read_text().splitlines() if LOG.exists() else []
    name, complaints = default_network()
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    new = [f'time="{now}" level=warning msg={json.dumps(text)}' for text in complaints]
    new.append(f'time="{now}" level=info msg="Updated default CNI network name to {name}"')
    logged = [line.partition("level=")[2] for line in lines]
    if logged[-len(new) :] != [line.partition("level=")[2] for line in new]:
        with LOG.open("a") as log:
            log.write("".join(f"{line}\n" for line in new))
        lines += new
    SEEN.touch()
    os.utime(SEEN, ns=(began, began))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="journalctl", allow_abbrev=False)
    parser.add_argument("-u", "--unit", action="append", default=[])
    parser.add_argument("-b", "--boot", nargs="?", const="0")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--no-pager", action="store_true")
    parser.add_argument("-o", "--output", default="short")
    parser.add_argument("-n", "--lines", nargs="?", const="10")
    parser.add_argument("-r", "--reverse", action="store_true")
    parser.add_argument("-g", "--grep")
    parser.add_argument("--show-cursor", action="store_true")
    parser.add_argument("--after-cursor")
    parser.add_argument("--since")
    options = parser.parse_args()
    entries = list(enumerate(refresh(), 1))
    if any(unit.removesuffix(".service") != "crio" for unit in options.unit):
        entries = []
    if options.after_cursor:
        entries = [(n, line) for n, line in entries if n > int(options.after_cursor)]
    if options.grep:
        # Without a capital letter in the pattern systemd ignores case.
        flags = 0 if re.search("[A-Z]", options.grep) else re.IGNORECASE
        entries = [(n, line) for n, line in entries if re.search(options.grep, line, flags)]
    if options.lines not in (None, "all"):
        entries = entries[-int(options.lines) :] if int(options.lines) else []
    if options.reverse:
        entries.reverse()
    for n, line in entries:
        if options.output == "json":
            print(json.dumps({"__CURSOR": str(n), "_SYSTEMD_UNIT": "crio.service", "MESSAGE": line}))
        elif options.output == "cat":
            print(line)
        else:
            at = datetime.fromisoformat(line.partition('"')[2][:19])
            print(f"{at:%b %d %H:%M:%S} {os.uname().nodename} crio[1]: {line}")
    if not entries and not options.quiet:
        print("-- No entries --")
    if options.show_cursor and entries:
        print(f"-- cursor: {entries[-1][0]}")
    return 1 if options.grep and not entries else 0


if __name__ == "__main__":
    sys.exit(main())
