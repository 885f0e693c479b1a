"""A Step: scripts and files for one machine, run there once over SSH, and again when they change.

One that is `for_changes` only does not run when it is made, and takes no connection then: its first run is at the first
change of its inputs.

The component's inputs are the reviewable face: variables, files leaf by leaf and the scripts' text, so a preview
shows which line of which file moves even where other leaves are secret or not known yet. Its one child is the
remote command that carries them, as one program on stdin; stdin keeps secrets out of process lists and errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_command import remote

from components.machines.machine import Machine
from components.node.script import File, compose, parts, read_script
from components.spec import names


@dataclass(frozen=True)
class StepArgs:
    """`after`: named leaves to wait for, never components. `timeout` in seconds bounds the whole run on the node.
    `delete`: a command line that undoes the step on its node; it must not need stdin. Only for a node that outlives
    the step: the engine dials it before it replaces what the step waits for, and a machine that is lost never answers.
    `lock`: what only one run on the machine may hold, where that is not the phase.
    `triggers`: values beside the machine's id whose change makes this another step (replace), not a changed one.
    """

    machine: Machine
    phase: names.StepPhase
    scripts: Sequence[str]
    variables: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    files: Sequence[File] = ()
    after: Sequence[pulumi.Resource] = ()
    triggers: Sequence[pulumi.Input[str]] = ()
    timeout: int = 900
    delete: str | None = None
    deleted_with: pulumi.Resource | None = None
    secret_output: bool = False
    lock: str | None = None
    for_changes: bool = False


class Step(pulumi.ComponentResource):
    """`done` is the leaf to depend on; `stdout` is what the scripts printed."""

    done: remote.Command
    stdout: pulumi.Output[str]

    def __init__(self, name: str, args: StepArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        files: list[dict[str, Any]] = [{"path": f.path, "mode": f.mode, "content": f.content} for f in args.files]
        face = {
            "node": args.machine.name,
            "phase": args.phase,
            "variables": dict(args.variables),
            "files": files,
            "scripts": {script: read_script(script) for script in parts(args.scripts)},
            "timeout": args.timeout,
        }
        if args.for_changes:
            face["forChanges"] = True
        super().__init__(names.STEP, name, face, opts)
        program = pulumi.Output.all(variables=dict(args.variables), files=files).apply(
            lambda known: compose(
                args.phase,
                known["variables"],
                [File(f["path"], f["content"], f["mode"]) for f in known["files"]],
                args.scripts,
                args.lock,
            )
        )
        sudo = "" if args.machine.root else "sudo -n "
        run = f"{sudo}timeout --kill-after=30 {args.timeout} bash -s"
        self.done = remote.Command(
            name,
            connection=args.machine.connection,
            create=None if args.for_changes else run,
            update=run if args.for_changes else None,
            delete=None if args.delete is None else sudo + args.delete,
            stdin=program,
            # Another machine is another step. One with a delete would first dial the machine that is gone; it runs
            # again all the same, for the connection is another.
            triggers=[*([args.machine.id] if args.delete is None else []), *args.triggers],
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(args.after),
                deleted_with=args.deleted_with or args.machine.resource,
                additional_secret_outputs=["stdout", "stderr"] if args.secret_output else None,
                # A changed trigger replaces; where there is something to undo it is undone first.
                delete_before_replace=True if args.delete is not None else None,
            ),
        )
        self.stdout = self.done.stdout
        self.register_outputs({"done": self.done.id})
