"""`./lab preview`, `up` and `destroy`: the pulumi CLI on this project's program."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cli import project
from cli.doctor.command import examine_before
from cli.doctor.model import Once
from cli.errors import USAGE, CommandError
from cli.lifecycle import ec2_machines, instance_type, local_machines, repair, screen
from cli.lifecycle.datapath import has_to_follow, wait_for_datapath
from cli.lifecycle.ec2_machines import Ec2State, Pulumi
from cli.lifecycle.hints import hints
from cli.lifecycle.live_changes import live_lab, refuse_changes
from cli.lifecycle.locks import settle_locks
from cli.lifecycle.pulumi_cli import environment_for_state, find_pulumi, missing_secrets, select
from cli.live.stack import is_known_absent
from cli.project import stack_file
from cli.signals import wait_for
from components.aws_client import AwsSettings
from components.spec.findings import SpecError
from components.spec.load import StackFile, load_stack_file
from components.spec.models import AwsMachines, LocalMachines
from components.spec.notes import notes
from components.spec.rules.machines import placeholders

CONFIRMED = {"-y", "--yes", "--preview-only"}
"""Options of `up` and `destroy` after which pulumi asks nothing."""

_PART = {"--target", "-t", "--target-replace", "--exclude", "-x", "--exclude-protected", "--preview-only"}
"""Options with which `up` or `destroy` is about a part of the lab, or changes nothing: then no machine is prepared, and
the stack stays."""

_SHORT_WITH_VALUE = "Ccmpstvx"
"""The short options of pulumi that take a value, which may follow in the same word."""


def options_in(arguments: Sequence[str]) -> set[str]:
    """The names of the options among a caller's arguments, also of several short ones in one word: -fyt URN."""
    found = set()
    for word in arguments:
        name = word.partition("=")[0]
        if name.startswith("--"):
            found.add(name)
        elif name.startswith("-"):
            for letter in name[1:]:
                found.add(f"-{letter}")
                if letter in _SHORT_WITH_VALUE:
                    break
    return found


def run(command: str, stack: str, arguments: Sequence[str], *, repaired: bool = False, examined: bool = True) -> int:
    """Run `pulumi COMMAND` on a lab; returns its exit code. Raises CommandError, SpecError.

    `repaired`: an `up` also runs the steps again whose work verify finds undone. `examined`: `up` and `preview` begin
    with the checks of `./lab doctor`.
    """
    path = stack_file(stack)
    file = load_stack_file(path)
    lab = file.lab
    given = options_in(arguments)
    whole = not given & _PART
    if command == "destroy" and is_known_absent(stack):
        print(f"{stack} is not up: there is nothing to destroy")
        return 0
    if command != "preview" and not sys.stdin.isatty() and not given & CONFIRMED:
        raise CommandError("standard input is not a terminal, so nobody can confirm: add --yes", USAGE)
    # A preview changes nothing, so there it is a warning (components/spec/notes.py).
    if command == "up" and (found := list(placeholders(lab))):
        raise SpecError(found, path.name)
    runs_program = command in ("preview", "up")
    # The checks and the preparation need it, and nothing between them changes it.
    on_this_computer = Once(partial(local_machines.read_state, stack))
    if examined and runs_program:
        examine_before(command, file, on_this_computer)
    environment, pulumi = environment_for_state(), find_pulumi()
    settle_locks(command, stack, environment)
    on_ec2 = runs_program and isinstance(lab.machines, AwsMachines)
    state = ec2_machines.read_state(stack) if on_ec2 else None
    live = live_lab(command, stack) if runs_program else None
    if runs_program:
        refuse_changes(stack, live, lab, None if state is None else state.made)
    gone = False
    if runs_program and isinstance(lab.machines, LocalMachines):
        more, gone = local_machines.prepare_up(command, stack, lab, on_this_computer(), repaired=repaired)
        arguments = [*arguments, *more]
    config = select(pulumi, stack, path, environment)
    if runs_program and (missing := missing_secrets(config, file.secret_keys)):
        keys = [key.removeprefix("cni-lab:") for key in missing]
        fix = ", then ".join(f"./lab secret {stack} {key}" for key in keys)
        raise CommandError(f"calico.peers: {', '.join(keys)} — no password yet: run {fix}", USAGE)
    if command == "up":
        # What is gone cannot be looked at.
        arguments = [*arguments, *(repair.options(stack) if repaired and not gone else repair.moved(stack))]
    options = ["--stack", stack, "--config-file", str(config)]
    # The caller's own policy pack replaces ours; policy/config.json loosens ours.
    policy = []
    if runs_program and "--policy-pack" not in given:
        policy = ["--policy-pack", str(project.ROOT / "policy")]
    options += policy
    if state is not None and whole:
        cli = Pulumi(pulumi, environment, stack, config, tuple(policy))
        arguments = [*arguments, *_prepare_ec2(command, file, stack, state, cli, arguments)]
    if command == "destroy":
        # Its state is written once, at the end. A destroy that was killed is run again and finds gone what is gone.
        environment.setdefault("PULUMI_SKIP_CHECKPOINTS", "true")
        # With it, pulumi also deletes the stack's file in stacks/. The stack itself is removed below.
        arguments = [argument for argument in arguments if argument.partition("=")[0] != "--remove"]
    with tempfile.TemporaryDirectory(dir=project.HOME) as folder:
        log = Path(folder) / "events"
        if screen.is_wanted(command, arguments):
            # Elsewhere pulumi prints what the program says; the screen has no place for it.
            for note in notes(lab) if command != "destroy" else ():
                print(f"lab {command}: {'warning' if note.warning else 'note'}: {note}", file=sys.stderr)
            shown = screen.Screen(command, stack, lab, pulumi, environment, project.ROOT, project.HOME)
            code = shown.run(options, arguments, log)
        else:
            process = subprocess.Popen(
                [pulumi, command, *options, "--event-log", str(log), *arguments],
                cwd=project.ROOT,
                # --event-log is hidden without this variable; the Automation API sets it too.
                env=environment | {"PULUMI_DEBUG_COMMANDS": "true"},
            )
            # On Ctrl-C the engine finishes its current work and releases its lock.
            code = wait_for(process)
            if code == 0 and command != "preview":
                screen.remember_events(project.HOME, stack, command, lab, log)
        for line in hints(log) if code else []:
            print(f"lab {command}: {line}", file=sys.stderr)
    if command == "up" and code == 0 and whole and live is not None and has_to_follow(live, lab):
        wait_for_datapath(stack)
    if command == "destroy" and code == 0 and whole:
        # The state has nothing left to remember.
        forget = [pulumi, "stack", "rm", "--yes", "--preserve-config", "--stack", stack]
        code = wait_for(subprocess.Popen(forget, cwd=project.ROOT, env=environment))
        if code == 0:
            config.unlink(missing_ok=True)
    return code


def _prepare_ec2(
    command: str, file: StackFile, stack: str, state: Ec2State, pulumi: Pulumi, arguments: Sequence[str]
) -> list[str]:
    """What pulumi does not see for itself on EC2: machines that are gone or stopped, and those whose type changes at
    once if nobody drains them. Returns options for `pulumi COMMAND`. Raises CommandError."""
    gone = ec2_machines.find_gone(command, stack, file.lab, state, AwsSettings.of(file.config))
    if gone and command == "up":
        ec2_machines.forget(pulumi, gone)
    there = {node: machine for node, machine in state.instances.items() if machine not in gone}
    cluster = instance_type.Cluster.of(stack) if there else None
    if cluster is not None:
        machines = instance_type.to_change(file.lab, Ec2State(there))
        if machines:
            instance_type.announce(command, file.lab, machines)
        if command == "up":
            instance_type.finish(cluster)
        if machines and command == "up":
            if not options_in(arguments) & CONFIRMED:
                instance_type.confirm()
            instance_type.change_in_turn(pulumi, cluster, instance_type.wanted_type(file.lab), machines)
    return ["--refresh"] if gone and command == "preview" and "--refresh" not in arguments else []
