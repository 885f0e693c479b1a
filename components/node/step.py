"""A Step: scripts and files for one machine, which run there over SSH when the step is created and when they change.

The component's inputs are what a person reviews: variables, files leaf by leaf, and the text of the scripts. So a
preview shows which line of which file changes, even where other leaves are secret or not known yet. The component's one
child is the remote command that sends all of it as one program on stdin, which keeps secrets out of process lists and
error messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_command import remote

from components import slowdown
from components.machines.machine import Machine
from components.node.script import File, compose, read_script, script_names
from components.spec import names


@dataclass(frozen=True)
class StepArgs:
    """What runs on which machine.

    `scripts`: names of files in this folder, in their order. `variables`: what the scripts say they take. `after`: the
    resources to wait for; never components, because a component stands for all of its children. `triggers`: values
    whose change replaces the step, besides the machine's id. `timeout_seconds`: the limit for the whole run on the
    node, before CNILAB_SLOWDOWN multiplies it.

    `delete`: a command line that undoes the step on its node. It gets no stdin. Only for a node that outlives the step:
    the engine runs the deletes before it replaces a machine, and a machine that is lost never answers. `deleted_with`:
    the resource whose deletion makes that needless, if it is not the machine.

    `subject`: the node that the step is about, if it is not the one that it runs on.
    `lock`: the name of the lock that one step on the machine can hold at a time, if it is not the phase.
    `for_changes`: the step does not run, and needs no connection, when it is created; it runs at the first change of
    its inputs.
    """

    machine: Machine
    phase: names.StepPhase
    scripts: Sequence[str]
    variables: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    files: Sequence[File] = ()
    after: Sequence[pulumi.Resource] = ()
    triggers: Sequence[pulumi.Input[str]] = ()
    timeout_seconds: int = 900
    delete: str | None = None
    deleted_with: pulumi.Resource | None = None
    subject: str | None = None
    lock: str | None = None
    for_changes: bool = False


class Step(pulumi.ComponentResource):
    """`done`: the resource to depend on. `stdout`: what the scripts printed."""

    done: remote.Command
    stdout: pulumi.Output[str]

    def __init__(self, name: str, args: StepArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        files: list[dict[str, Any]] = [{"path": f.path, "mode": f.mode, "content": f.content} for f in args.files]
        timeout_seconds = args.timeout_seconds * slowdown.factor()
        shown = {
            "node": args.machine.name,
            "phase": args.phase,
            "variables": dict(args.variables),
            "files": files,
            "scripts": {script: read_script(script) for script in script_names(args.scripts)},
            "timeout": timeout_seconds,
        }
        if args.subject is not None:
            shown["subject"] = args.subject
        if args.for_changes:
            shown["forChanges"] = True
        super().__init__(names.STEP, name, shown, opts)
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
        run = f"{sudo}timeout --kill-after=30 {timeout_seconds} bash -s"
        self.done = remote.Command(
            name,
            connection=args.machine.connection,
            create=None if args.for_changes else run,
            update=run if args.for_changes else None,
            delete=None if args.delete is None else sudo + args.delete,
            stdin=program,
            # Another machine needs another step. If the step had a delete, its replacement would first connect to the
            # machine that is gone; it is not replaced, and runs again because its connection changes.
            triggers=[*([args.machine.id] if args.delete is None else []), *args.triggers],
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=list(args.after),
                deleted_with=args.deleted_with or args.machine.resource,
                # A changed trigger replaces the command. If that has something to undo, it is undone first.
                delete_before_replace=True if args.delete is not None else None,
            ),
        )
        self.stdout = self.done.stdout
        self.register_outputs({"done": self.done.id})
