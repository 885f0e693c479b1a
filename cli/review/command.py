"""`./lab plan --against REV`: plans both sides at once, each in a process of its own, and reports what differs."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cli.console import page
from cli.errors import MISSING, USAGE, CommandError
from cli.plan.folder import write
from cli.plan.page import WIDTH
from cli.project import ROOT, stack_files
from cli.review import side
from cli.review.changes import Comparison, compare
from cli.review.pages import Report, document, markdown, show
from components.spec.changes import refused_changes
from components.spec.models import Lab
from components.spec.names import base_name
from policy.check import ConfigError, check
from policy.model import PlannedResource

GATE = 4
"""Exit code where a live lab cannot take a change, the policy refuses it, or a control plane would be replaced."""

_STACK_TIMEOUT_SECONDS = 150
"""A side is killed after this time for each stack. A program that hangs is reported before that, by engine.run."""

Json = dict[str, Any]


def review(
    stack: str | None, against: str, *, as_json: bool, as_markdown: bool, out: Path | None, gate: bool = False
) -> int:
    """Print what the working tree changes against a revision, for one stack or for every one.

    Returns 0, also where much changes; 1 where a stack of the working tree cannot be planned; with `gate`, GATE where a
    live lab cannot take a change, where the policy refuses it, and where a control plane would not survive or that is
    not known. Raises CommandError for a bad revision, stack or folder (USAGE), and without git (MISSING).
    """
    report = _report(stack, against)
    # Only what is needed is built: the text of a large change takes longer to lay out than all the rest.
    comment = markdown(report) if as_markdown or out is not None else ""
    data = json.dumps(document(report), indent=2, ensure_ascii=False) + "\n" if as_json or out is not None else ""
    if out is not None:
        touched = "".join(f"{comparison.stack}\n" for comparison in report.touched)
        write(out, {"comment.md": comment, "comparison.json": data, "stacks.txt": touched})
    try:
        if as_json or as_markdown:
            sys.stdout.write(data if as_json else comment)
        else:
            show(report, page(WIDTH))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if gate:
        for line in report.stopped:
            print(f"lab plan: {line}", file=sys.stderr)
    if report.failed:
        return 1
    return GATE if gate and report.stopped else 0


def _report(stack: str | None, against: str) -> Report:
    commit = _commit(against)
    with tempfile.TemporaryDirectory(prefix="cni-lab-plan-") as folder:
        tree = Path(folder, "tree")
        _check_out(commit, tree)
        here, there = _stacks(ROOT), _stacks(tree)
        stacks = sorted(here | there)
        if stack is not None:
            if stack not in stacks and (base := base_name(stack)) in stacks:
                raise CommandError(
                    f"{stack} has no file of its own, because it follows {base}: compare {base}, without --local", USAGE
                )
            if stack not in stacks:
                known = ", ".join(stacks)
                raise CommandError(f"there is no stack {stack!r}, here or at {against}; there are: {known}", USAGE)
            stacks = [stack]
        befores, afters = _plans([tree, ROOT], stacks, Path(folder))
        notes = []
        if _text(ROOT / "requirements.txt") != _text(tree / "requirements.txt"):
            notes.append("requirements.txt differs: both sides are planned with the packages that are installed here")
    comparisons = tuple(_compared(name, befores[name], afters[name], against) for name in stacks)
    changed = _git("status", "--porcelain", "--", ".").splitlines()
    return Report(against, commit, len(changed), comparisons, tuple(notes))


def _compared(stack: str, before: Json, after: Json, against: str) -> Comparison:
    """The comparison, or a note where a side has no plan. An error of None means that there is no stack file."""
    file = f"stacks/Pulumi.{stack}.yaml"
    if "error" not in before and "error" not in after:
        return replace(compare(stack, before, after), refused=_refused(before, after), broken=_broken(after))
    notes = []
    if before.get("error"):
        notes.append(f"at {against}: {before['error']}: nothing to compare with")
    if after.get("error"):
        notes.append(f"in the working tree: {after['error']}")
    new, gone = before.get("error", "") is None, after.get("error", "") is None
    if gone:
        notes.append(f"{file} was removed: if the lab is up, run ./lab destroy {stack} first")
    if new and "error" not in after:
        empty = {"resources": [], "outputs": after["outputs"], "controlPlanes": []}
        made = compare(stack, empty, after)
        # Hundreds of new resources have no place in a comparison; `plan` shows them.
        changes = tuple(replace(change, parts=()) for change in made.changes)
        return replace(
            made,
            changes=changes,
            broken=_broken(after),
            notes=(f"a new stack: ./lab plan {stack} shows it", *made.notes),
        )
    return Comparison(
        stack, notes=tuple(notes), failed=bool(after.get("error")), judged=not (before.get("error") and not gone)
    )


def _refused(before: Json, after: Json) -> tuple[str, ...]:
    """What a live lab cannot take. Nothing is known of a lab whose keys this program does not have any more."""
    try:
        old, new = (Lab.model_validate_json(json.dumps(side["lab"])) for side in (before, after))
    except (KeyError, ValidationError):
        return ()
    return tuple(str(finding) for finding in refused_changes(old, new))


def _broken(plan: Json) -> tuple[str, ...]:
    """The mandatory rules of the policy that a plan breaks. Raises CommandError for a policy that cannot be used."""
    made = [PlannedResource(r["type"], r["name"], r["inputs"], r["urn"]) for r in plan["resources"]]
    try:
        found = check(made)
    except ConfigError as error:
        raise CommandError(str(error), USAGE) from None
    return tuple(f"{violation.rule.name}: {violation}" for violation in found if violation.mandatory)


# --- the two sides ---------------------------------------------------------------------------------------------------


def _commit(revision: str) -> str:
    """The full id of a revision. Raises CommandError."""
    if shutil.which("git") is None:
        raise CommandError("--against reads a git revision, and there is no git on PATH: install it", MISSING)
    if subprocess.run(["git", "rev-parse", "--git-dir"], cwd=ROOT, capture_output=True).returncode:
        raise CommandError(
            f"--against reads a git revision, and {ROOT} is in no git repository: clone it, or git init", MISSING
        )
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if found.returncode or not revision:
        raise CommandError(
            f"--against {revision!r}: git knows no such commit; name a branch, a tag or a commit "
            "(a shallow clone has few: git fetch --unshallow)",
            USAGE,
        )
    return found.stdout.strip()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"git {arguments[0]} fails: {' '.join(done.stderr.split())}", MISSING)
    return done.stdout


def _check_out(commit: str, tree: Path) -> None:
    """Write the revision's files into a folder of their own; the index and the working tree stay as they are."""
    done = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise CommandError(f"git archive {commit[:7]} fails: {reason}", MISSING)
    tree.mkdir()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        # The plan does not read tests and docs, which are most of the files.
        wanted = [m for m in archive if not m.name.startswith(("tests/", "docs/"))]
        for member in filter(tarfile.TarInfo.issym, wanted):
            target = os.path.normpath(Path(member.name).parent / member.linkname)
            if target.startswith(("/", "..")):
                problem = f"{member.name} is a link to {member.linkname}, outside of the repository"
                fix = "take it out of the repository (git rm --cached)"
                raise CommandError(f"commit {commit[:7]} cannot be unpacked: {problem}. Fix: {fix}", MISSING)
        # Python before 3.11.4, such as Debian 12's, has no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tree, members=wanted)


def _stacks(tree: Path) -> set[str]:
    # Any other name is not a stack's, and would end up in pages and command lines.
    return {name for name in stack_files(tree) if re.fullmatch(r"[A-Za-z0-9_.-]+", name)}


def _plans(trees: Sequence[Path], stacks: Sequence[str], folder: Path) -> list[dict[str, Json]]:
    """For each tree its plans by stack, as `side` writes them. The trees are planned at the same time."""
    with _running(trees, stacks, folder) as processes:
        return [_collect(process, folder / str(index), stacks) for index, process in enumerate(processes)]


@contextmanager
def _running(trees: Sequence[Path], stacks: Sequence[str], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = []
    try:
        for index, tree in enumerate(trees):
            # What is compiled of a revision is thrown away with its files.
            environment = os.environ | ({} if tree == ROOT else {"PYTHONDONTWRITEBYTECODE": "1"})
            # -P: without it the modules beside side.py would be importable by their short names.
            command = [sys.executable, "-P", side.__file__, str(tree), str(folder / str(index)), *stacks]
            with (folder / f"{index}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
                    )
                )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _collect(process: subprocess.Popen[bytes], out: Path, stacks: Sequence[str]) -> dict[str, Json]:
    try:
        ended = f"it ends with exit code {process.wait(_STACK_TIMEOUT_SECONDS * len(stacks))}"
    except subprocess.TimeoutExpired:
        process.kill()
        ended = f"it is not done after {_STACK_TIMEOUT_SECONDS * len(stacks)} s"
    lines = _text(out).splitlines()
    plans = {plan.pop("stack"): plan for plan in map(json.loads, filter(_whole, lines))}
    last = (_text(out.with_name(f"{out.name}.log")).splitlines() or ["it says nothing"])[-1]
    return {stack: plans.get(stack, {"error": f"its program cannot be run: {ended}: {last}"}) for stack in stacks}


def _whole(line: str) -> bool:
    """Whether it is a whole line; a process that was killed may leave half of one."""
    return line.startswith("{") and line.endswith("}")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
