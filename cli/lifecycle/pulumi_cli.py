"""preview, up and destroy: the real pulumi CLI on this program, with a state of its own.

Everything it keeps stands in `.lab/` (mode 0700, ignored by git): the state, a generated passphrase, a copy of the
stack file that may carry the stack's encryption salt, and the CLI itself where it was not installed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from cli.lifecycle import screen
from cli.lifecycle.hints import hints
from components.spec.load import SpecError, load_stack_file

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".lab"
POLICY = ROOT / "policy"
VERSION = "3.272.0"
# Resources worked on at once. Pulumi's own choice follows this computer's cores, but the work is the machines'.
PARALLEL = "64"


class CannotRun(Exception):
    """The command cannot be run; the message is one line with the mend. `code`: 2 for what the caller can mend in
    the command, 3 for what is missing on this computer."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message)
        self.code = code


def refuse(command: str, error: CannotRun | SpecError) -> int:
    """Say on stderr why a command cannot be run; returns its exit code."""
    if isinstance(error, SpecError):
        print(error, file=sys.stderr)
        return 2
    print(f"lab {command}: {error}", file=sys.stderr)
    return error.code


def run(command: str, stack: str, arguments: Sequence[str], *, repair: bool = False) -> int:
    """Run `pulumi <command>` on a lab; returns its exit code, 2 for a bad stack file, 3 where there is no CLI.

    `repair`: run again the steps whose work verify finds undone.
    """
    try:
        path = stack_file(stack)
        lab = load_stack_file(path).lab
        pulumi, environment = find_pulumi(), environment_for_state()
        config = _select(pulumi, stack, path, environment)
        if command == "up":
            from cli.lifecycle import repair as undone  # it reads a live lab through this module

            arguments = [*arguments, *(undone.options(stack) if repair else undone.moved(stack))]
    except (CannotRun, SpecError) as error:
        return refuse(command, error)
    options = ["--stack", stack, "--config-file", str(config)]
    if not sys.stdin.isatty() and command != "preview":
        options.append("--yes")
    # Somebody's own pack may stand in for ours; ours is loosened in policy/config.json.
    if command in ("preview", "up") and not any(a.split("=")[0] == "--policy-pack" for a in arguments):
        options += ["--policy-pack", str(POLICY)]
    if command == "destroy":
        # Its state is written once, at the end: a destroy that was killed is repeated, and finds gone what is gone.
        environment.setdefault("PULUMI_SKIP_CHECKPOINTS", "true")
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        log = Path(folder) / "events"
        # What the Automation API asks for its event log: the option is hidden otherwise.
        if screen.wanted(command, arguments):
            shown = screen.Screen(command, stack, lab, pulumi, environment, ROOT, HOME)
            code = shown.run(options, arguments, log)
        else:
            code = subprocess.run(
                [pulumi, command, *options, "--event-log", str(log), *arguments],
                cwd=ROOT,
                env=environment | {"PULUMI_DEBUG_COMMANDS": "true"},
            ).returncode
            if code == 0 and command != "preview":
                screen.keep_time(HOME, stack, command, lab, log)
        for line in hints(log) if code else []:
            print(f"lab {command}: {line}", file=sys.stderr)
    if command == "destroy" and code == 0 and not {"--target", "-t", "--preview-only"} & set(arguments):
        # Nothing is left that the state would have to remember.
        forget = [pulumi, "stack", "rm", "--yes", "--preserve-config", "--stack", stack]
        code = subprocess.run(forget, cwd=ROOT, env=environment).returncode
        config.unlink(missing_ok=True)
    return code


def stack_file(stack: str) -> Path:
    """The stack file of a lab. Raises CannotRun naming the labs there are."""
    files = {p.name: p for p in (ROOT / "stacks").glob("Pulumi.*.yaml") if p.is_file()}
    path = files.get(f"Pulumi.{stack}.yaml")
    if path is None:
        known = ", ".join(sorted(name.removeprefix("Pulumi.").removesuffix(".yaml") for name in files)) or "none"
        raise CannotRun(_misnamed(stack) or f"there is no stack {stack!r}; stacks/ has: {known}", code=2)
    return path


def _misnamed(stack: str) -> str | None:
    """What to say where `stack` is a file that is there, by its path or by a name that Pulumi does not read."""
    folder = ROOT / "stacks"
    places = (
        Path(stack),
        folder / stack,
        folder / f"{stack}.yaml",
        folder / f"{stack}.yml",
        folder / f"Pulumi.{stack}.yml",
    )
    for path in places:
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            continue
        name = path.stem.removeprefix("Pulumi.")
        right = folder / f"Pulumi.{name}.yaml"
        if path.resolve() == right.resolve():
            return f"{stack} is the file of a stack; write the stack's name: {name}"
        return f"{path} is not read as a stack: name it stacks/{right.name}, and its stack is {name}"
    return None


def find_pulumi() -> str:
    """The pulumi CLI: the one on PATH, else ours, else installed now by Pulumi's own installer."""
    ours = HOME / "pulumi"
    for found in (shutil.which("pulumi"), shutil.which("pulumi", path=str(ours / "bin"))):
        if found:
            return found
    from pulumi.automation import PulumiCommand
    from semver import VersionInfo

    print(f"lab: installing the pulumi CLI {VERSION} into .lab/pulumi", file=sys.stderr)
    try:
        return PulumiCommand.install(root=str(ours), version=VersionInfo.parse(VERSION)).command
    except Exception as error:  # the installer raises whatever its download raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CannotRun(
            f"the pulumi CLI is not on PATH and its installer could not be run ({reason}); "
            f"install pulumi {VERSION} from https://www.pulumi.com/docs/install/ and run the same command again"
        ) from None


def environment_for_state() -> dict[str, str]:
    """The CLI's environment: what the person set wins; else a file backend and a passphrase under .lab/."""
    environment = dict(os.environ)
    environment.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    # For what `up` runs on this computer (components/verify/component.py).
    environment.setdefault("CNI_LAB_PYTHON", sys.executable)
    environment.setdefault("PULUMI_PARALLEL", PARALLEL)
    HOME.mkdir(mode=0o700, exist_ok=True)
    HOME.chmod(0o700)
    if "PULUMI_BACKEND_URL" not in environment:
        (HOME / "state").mkdir(mode=0o700, exist_ok=True)
        environment["PULUMI_BACKEND_URL"] = (HOME / "state").as_uri()
        # The whole state is written before and after every resource.
        environment.setdefault("PULUMI_DIY_BACKEND_ZSTD", "true")
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environment.keys():
        environment["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(_passphrase())
    return environment


def _passphrase() -> Path:
    path = HOME / "passphrase"
    if not path.exists():
        draft = HOME / f"passphrase.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        try:
            # A link fails where another process was first: its passphrase stays.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path


def _select(pulumi: str, stack: str, path: Path, environment: dict[str, str]) -> Path:
    """Make sure that the stack exists, and return the stack file as the CLI reads it.

    The CLI writes the encryption salt into the stack file it finds, so it is shown a project folder of our own: the
    file under stacks/ stays as its author wrote it.
    """
    folder = HOME / "config"
    folder.mkdir(exist_ok=True)
    (folder / "Pulumi.yaml").write_text("name: cni-lab\nruntime: python\n", encoding="utf-8")
    result = subprocess.run(
        [pulumi, "stack", "select", "--create", "--stack", stack, "--non-interactive"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        reason = " ".join(result.stderr.split()).removeprefix("error: ") or f"exit code {result.returncode}"
        raise CannotRun(f"the stack cannot be selected: {reason}")
    copy = folder / path.name
    kept = (yaml.safe_load(copy.read_text(encoding="utf-8")) or {}) if copy.exists() else {}
    merged = kept | (yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    draft = copy.with_suffix(".tmp")
    draft.write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    draft.replace(copy)
    return copy
