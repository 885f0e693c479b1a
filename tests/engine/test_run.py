"""The in-process engine: what it records, what it refuses, and how a program that hangs ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_random as random
import pytest
from pulumi_command import remote

from engine import run as engine
from engine.model import SECRET, UNKNOWN, Deployment, HangError, ProgramError, Registration, Resource
from engine.run import run_program
from tests.engine.lab_program import Room, program

Options = pulumi.ResourceOptions
ROOT = "urn:pulumi:dev::cni-lab::pulumi:pulumi:Stack::cni-lab-dev"


@pytest.fixture(autouse=True)
def stalls_show_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STALLED_AFTER_SECONDS", 0.3)


def by_name(deployment: Deployment, name: str, kind: str = "") -> Resource:
    found = [r for r in deployment.resources if r.name == name and r.type.endswith(kind)]
    assert len(found) == 1, [r.urn for r in found]
    return found[0]


def text(name: str, opts: Options | None = None, **inputs: Any) -> random.RandomString:
    """A custom resource with one input and, once created, one output (`result`)."""
    return random.RandomString(name, length=8, keepers=inputs, opts=opts)


# --- what is recorded


def test_a_resource_is_recorded_as_pulumi_would_receive_it() -> None:
    def one() -> None:
        first = text("first")
        room = Room("cnilab:a:Room", "room")
        inner = Room("cnilab:b:Inner", "inner", Options(parent=room))
        text(
            "child",
            Options(
                parent=inner,
                depends_on=[first],
                ignore_changes=["length"],
                replace_on_changes=["keepers"],
                delete_before_replace=True,
                additional_secret_outputs=["result"],
                protect=True,
                retain_on_delete=True,
                custom_timeouts=pulumi.CustomTimeouts(create="5m", delete="1m"),
                version="1.2.3",
            ),
            before=text("other").result,
        )

    made = run_program(one)
    assert [r.name for r in made.resources] == ["cni-lab-dev", "first", "room", "inner", "other", "child"]
    child = by_name(made, "child")
    first, other = by_name(made, "first").urn, by_name(made, "other").urn
    kind = "random:index/randomString:RandomString"
    assert child.urn == f"urn:pulumi:dev::cni-lab::cnilab:a:Room$cnilab:b:Inner${kind}::child"
    assert child.to_json() == {
        "urn": child.urn,
        "type": kind,
        "name": "child",
        "parent": by_name(made, "inner").urn,
        "custom": True,
        "inputs": {"keepers": {"before": UNKNOWN}, "length": 8},
        "dependencies": sorted([first, other]),
        "provider": None,
        "deletedWith": None,
        "ignoreChanges": ["length"],
        "propertyDependencies": {"keepers": [other]},
        "replaceOnChanges": ["keepers"],
        "deleteBeforeReplace": True,
        "additionalSecretOutputs": ["result"],
        "protect": True,
        "retainOnDelete": True,
        "customTimeouts": {"create": "5m", "delete": "1m"},
        "version": "1.2.3",
    }
    assert child.source and child.source.startswith(f"{__file__}:")
    assert by_name(made, "room").parent == ROOT and by_name(made, "cni-lab-dev").parent is None


def test_unknown_and_secret_leaves_are_marked_one_by_one() -> None:
    def one() -> None:
        unknown = text("source").result
        secret = pulumi.Output.secret("word")
        both = pulumi.Output.secret(unknown)
        Room(
            "cnilab:a:Room",
            "room",
            leaves=[unknown, secret, both, 1, 2.5, None, True],
            nest={"a": {"b": secret, "c": "d"}},
        )
        pulumi.export("leaves", {"unknown": unknown, "secret": secret, "both": both, "plain": [1, "a"]})

    made = run_program(one)
    assert by_name(made, "room").inputs == {
        "leaves": [UNKNOWN, SECRET, SECRET, 1, 2.5, None, True],
        "nest": {"a": {"b": SECRET, "c": "d"}},
    }
    assert made.outputs == {"leaves": {"unknown": UNKNOWN, "secret": SECRET, "both": SECRET, "plain": [1, "a"]}}


def test_a_secret_output_is_secret_before_it_is_known() -> None:
    def one() -> None:
        password = random.RandomPassword("password", length=8)
        command = remote.Command(
            "command", connection={"host": "h"}, opts=Options(additional_secret_outputs=["stdout"])
        )
        Room("cnilab:a:Room", "room", a=password.result, b=command.stdout, c=command.stderr)

    assert by_name(run_program(one), "room").inputs == {"a": SECRET, "b": SECRET, "c": UNKNOWN}
    made = run_program(one, dry_run=False)
    assert by_name(made, "room").inputs == {"a": SECRET, "b": SECRET, "c": ""}


def test_triggers_of_a_command_replace_it() -> None:
    made = run_program(lambda: void(remote.Command("c", connection={"host": "h"}, triggers=["one"])))
    assert by_name(made, "c").replace_on_changes == ("triggers[*]",)
    assert by_name(made, "c").inputs["connection"] == SECRET


def test_assets_and_resources_as_inputs() -> None:
    def one() -> None:
        Room("cnilab:a:Room", "room", asset=pulumi.StringAsset("words"), other=text("other"))

    inputs = by_name(run_program(one), "room").inputs
    assert inputs["asset"] == {"text": "words"} and inputs["other"].endswith("::other")


def test_a_component_in_depends_on_stands_for_its_resources() -> None:
    def one() -> None:
        room = Room("cnilab:a:Room", "room")
        text("in", Options(parent=room))
        text("deeper", Options(parent=Room("cnilab:a:Room", "nested", Options(parent=room))))
        text("after", Options(depends_on=[room]))

    made = run_program(one)
    assert set(by_name(made, "after").dependencies) == {by_name(made, "in").urn, by_name(made, "deeper").urn}


def test_children_inherit_options_of_their_parent() -> None:
    def one() -> None:
        machine = text("machine")
        west = aws.Provider("west", region="us-west-2")
        room = Room(
            "cnilab:a:Room",
            "room",
            Options(deleted_with=machine, protect=True, retain_on_delete=True, providers=[west]),
        )
        inner = Room("cnilab:a:Room", "inner", Options(parent=room))
        aws.ec2.Vpc("vpc", opts=Options(parent=inner))
        text("own", Options(parent=inner, deleted_with=text("other"), protect=False))

    made = run_program(one)
    machine, west = by_name(made, "machine").urn, by_name(made, "west").urn
    vpc, own = by_name(made, "vpc"), by_name(made, "own")
    assert (vpc.deleted_with, vpc.protect, vpc.retain_on_delete, vpc.provider) == (machine, True, True, west)
    assert (own.deleted_with, own.protect, own.provider) == (by_name(made, "other").urn, False, None)
    assert by_name(made, "inner").providers == {"aws": west}


def test_a_data_source_is_unknown_in_a_preview_and_invoked_in_an_up() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def invoke(token: str, args: dict[str, Any]) -> dict[str, Any]:
        asked.append((token, args))
        return {**args, "value": "ami-1"}

    def one() -> None:
        Room("cnilab:a:Room", "room", ami=aws.ssm.get_parameter_output(name="/an/ami").value)

    assert by_name(run_program(one, invoke=invoke), "room").inputs == {"ami": UNKNOWN}
    assert asked == []
    made = run_program(one, dry_run=False, invoke=invoke)
    # The SDK marks the value of a parameter as secret if the answer says so, which this one does not.
    assert by_name(made, "room").inputs == {"ami": "ami-1"}
    assert asked == [("aws:ssm/getParameter:getParameter", {"name": "/an/ami"})]


def test_the_log_is_kept_without_its_debug_lines() -> None:
    def one() -> None:
        pulumi.log.debug("d")
        pulumi.log.info("i")
        pulumi.log.warn("w", resource=text("about"))
        pulumi.log.error("e")

    made = run_program(one)
    assert {(m.severity, m.text) for m in made.messages} == {("info", "i"), ("warning", "w"), ("error", "e")}
    assert next(m.urn for m in made.messages if m.text == "w") == by_name(made, "about").urn


def test_config_reaches_the_program_and_no_later_run() -> None:
    seen: list[str | None] = []

    def one() -> None:
        config = pulumi.Config("cni-lab")
        seen.append(config.get("word"))
        pulumi.export("word", config.get_secret("word"))
        pulumi.export("object", config.get_object("object"))
        pulumi.export("where", f"{pulumi.get_project()} {pulumi.get_stack()} {pulumi.runtime.is_dry_run()}")

    made = run_program(
        one, config={"cni-lab:word": "abc", "cni-lab:object": '{"a": [1]}'}, secret_keys=["cni-lab:word"]
    )
    assert made.outputs == {"word": SECRET, "object": {"a": [1]}, "where": "cni-lab dev True"}
    run_program(one, stack="other")
    assert seen == ["abc", None]


def test_a_program_is_a_file_that_imports_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "beside_the_program.py").write_text("NAME = 'from the module'\n")
    (tmp_path / "__main__.py").write_text(
        "import pulumi\nfrom beside_the_program import NAME\npulumi.export('name', NAME)\n"
        "pulumi.export('main', __name__)\n"
    )
    before = list(sys.path)
    assert run_program(tmp_path / "__main__.py").outputs == {"name": "from the module", "main": "__main__"}
    assert sys.path == before


def test_an_async_program() -> None:
    async def one() -> None:
        await asyncio.sleep(0.01)
        text("late")

    assert by_name(run_program(one), "late")


# --- preview and up


def test_preview_and_up_have_the_same_graph() -> None:
    def shape(deployment: Deployment) -> list[dict[str, Any]]:
        return [r.to_json() | {"inputs": sorted(r.inputs)} for r in deployment.resources]

    preview, up = run_program(program), run_program(program, dry_run=False)
    assert sorted(shape(preview), key=lambda r: r["urn"]) == sorted(shape(up), key=lambda r: r["urn"])
    assert UNKNOWN in json.dumps(preview.to_json()) and UNKNOWN not in json.dumps(up.to_json())
    assert "s3cret" not in json.dumps(preview.to_json()) + json.dumps(up.to_json())


def test_runs_are_reproducible() -> None:
    assert run_program(program) == run_program(program)
    assert run_program(program, dry_run=False) == run_program(program, dry_run=False)


def test_create_gets_inputs_in_clear_and_returns_id_and_outputs() -> None:
    told: list[Registration] = []

    def create(registration: Registration) -> tuple[str, dict[str, Any]]:
        told.append(registration)
        return "the-id", {"result": "the result"}

    def one() -> None:
        made = text("made", word=pulumi.Output.secret("hidden"))
        pulumi.export("made", [made.id, made.result, made.length])

    made = run_program(one, dry_run=False, create=create)
    assert made.outputs == {"made": ["the-id", "the result", 8]}
    assert told == [Registration(by_name(made, "made").urn, by_name(made, "made").type, "made",
                                 {"length": 8, "keepers": {"word": "hidden"}})]  # fmt: skip
    assert by_name(made, "made").inputs["keepers"] == {"word": SECRET}


def test_a_failing_create_is_the_programs_failure() -> None:
    def create(registration: Registration) -> tuple[str, dict[str, Any]]:
        raise LookupError("no room at the inn")

    with pytest.raises(ProgramError, match="no room at the inn"):
        run_program(lambda: void(text("made")), dry_run=False, create=create)


# --- what is refused


def test_two_resources_with_one_urn_are_refused_with_both_places() -> None:
    def one() -> None:
        text("twin")
        text("twin")

    with pytest.raises(ProgramError) as caught:
        run_program(one)
    message = str(caught.value)
    assert "random:index/randomString:RandomString::twin" in message and "another name or parent" in message
    assert message.count(f"{__file__}:") == 2


def test_a_run_error_shows_only_its_message() -> None:
    def one() -> None:
        raise pulumi.RunError("the pool is too small:\n  make it larger")

    with pytest.raises(ProgramError) as caught:
        run_program(one)
    assert str(caught.value) == "the pool is too small:\n  make it larger"
    assert "Traceback" in caught.value.trace


@pytest.mark.parametrize("where", ["at once", "in an apply"])
def test_any_other_error_shows_its_place_in_the_program(where: str) -> None:
    def one() -> None:
        if where == "at once":
            raise KeyError("spec")
        text("made").length.apply(lambda length: {}[length])

    with pytest.raises(ProgramError) as caught:
        run_program(one)
    assert str(caught.value).startswith("KeyError: ") and f"({__file__}:" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise SystemExit(3)", r"the program called exit\(3\)"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("this is no Python", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_run(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "__main__.py").write_text(source)
    with pytest.raises(ProgramError, match=message):
        run_program(tmp_path / "__main__.py")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="FileNotFoundError"):
        run_program(tmp_path / "nothing.py")


def test_a_failure_leaves_nothing_behind_for_the_next_run() -> None:
    def bad() -> None:
        text("one")
        raise pulumi.RunError("bad")

    for _ in range(3):
        with pytest.raises(ProgramError, match=r"^bad$"):
            run_program(bad)
    assert len(run_program(lambda: void(text("one"))).resources) == 2


def keep(_: object) -> None:
    """A transform, or a hook, that changes nothing."""


def transformed_stack() -> None:
    pulumi.runtime.register_resource_transform(keep)


def transformed_resource() -> None:
    text("made", Options(transforms=[keep]))


def transformed_component() -> None:
    text("made", Options(parent=Room("cnilab:a:Room", "room", Options(transforms=[keep]))))


def hooked() -> None:
    text("made", Options(hooks=pulumi.ResourceHookBinding(before_create=[pulumi.ResourceHook("check", keep)])))


def hooked_on_error() -> None:
    text("made", Options(hooks=pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook("retry", lambda _: False)])))


def read() -> None:
    aws.ec2.Vpc.get("old", "vpc-1")


@pytest.mark.parametrize(
    ("uses", "feature"),
    [
        (transformed_stack, "transforms"),
        (transformed_resource, "transforms"),
        (transformed_component, "transforms"),
        (hooked, r"hooks \(check\)"),
        (hooked_on_error, r"hooks \(retry\)"),
        (read, r"reading an existing resource \(aws:ec2/vpc:Vpc.get\)"),
    ],
)
def test_what_only_the_cli_can_run_is_refused_by_name(uses: Callable[[], None], feature: str) -> None:
    with pytest.raises(ProgramError, match=rf"uses {feature}, which only the pulumi CLI can run: use `pulumi preview`"):
        run_program(uses)


# --- programs that do not end


def test_a_component_that_waits_for_its_own_late_child_is_named() -> None:
    """The hang of pulumi#7894: depends_on a component expands to children that are added later."""

    def one() -> None:
        room = Room("cnilab:a:Room", "room")
        after = text("after", Options(depends_on=[room]))
        text("late", Options(parent=room), word=after.result)

    start = time.monotonic()
    with pytest.raises(HangError) as caught:
        run_program(one, timeout_seconds=60)
    assert time.monotonic() - start < 10, "it must not wait for the timeout"
    message = str(caught.value)
    assert "after (random:index/randomString:RandomString) waits for late.urn" in message
    assert "late (random:index/randomString:RandomString) waits for after.result" in message
    assert "1 resources were registered, the last of them room (cnilab:a:Room)" in message


def test_a_future_that_is_never_resolved_is_reported() -> None:
    async def never() -> str:
        return str(await asyncio.get_running_loop().create_future())

    with pytest.raises(HangError, match=r"stuck \(.*\) waits for a future that nothing resolves"):
        run_program(lambda: void(text("stuck", word=pulumi.Output.from_input(never()))), timeout_seconds=60)


def test_a_failure_takes_precedence_over_the_hang_that_it_causes() -> None:
    def one() -> None:
        text("twin")
        text("twin")

        async def never() -> str:
            return str(await asyncio.get_running_loop().create_future())

        text("stuck", word=pulumi.Output.from_input(never()))

    with pytest.raises(ProgramError, match="two resources have the URN"):
        run_program(one, timeout_seconds=60)


def test_a_program_that_sleeps_is_stopped() -> None:
    async def one() -> None:
        text("made")
        await asyncio.sleep(600)

    with pytest.raises(HangError, match=r"not done after 0.5 s(.|\n)*the last of them made"):
        run_program(one, timeout_seconds=0.5)


def test_a_program_that_computes_forever_is_stopped_and_its_line_named() -> None:
    def one() -> None:
        while True:
            pass

    with pytest.raises(HangError, match=rf"the program itself is at {__file__}:\d+"):
        run_program(one, timeout_seconds=0.5)
    deadline = time.monotonic() + 10
    while any(thread.name == "program" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread still runs"
        time.sleep(0.05)
    assert by_name(run_program(lambda: void(text("made"))), "made")


# --- against the real engine

ORACLE = """
import pulumi
from pulumi import ResourceOptions as O
from pulumi_command import Provider, local


class Room(pulumi.ComponentResource):
    def __init__(self, token, name, opts=None, **inputs):
        super().__init__(token, name, inputs, opts)


first = local.Command("first", create="echo 1")
own = Provider("own")
room = Room("cnilab:a:Room", "room", O(deleted_with=first, retain_on_delete=True, providers=[own]))
inner = Room("cnilab:b:Inner", "inner", O(parent=room), word=pulumi.Output.secret("x"), out=first.stdout)
child = local.Command(
    "child",
    create="echo 2",
    environment={"A": first.stdout, "B": pulumi.Output.secret("s")},
    triggers=["a"],
    opts=O(parent=inner, ignore_changes=["stdin"], delete_before_replace=True, additional_secret_outputs=["stdout"]),
)
local.Command("below", create="echo 3", opts=O(depends_on=[room], parent=child))
"""


@pytest.mark.skipif(
    not (shutil.which("pulumi") and shutil.which("pulumi-resource-command")),
    reason="the pulumi CLI and its command plugin are not on PATH",
)
def test_pulumi_itself_records_the_same(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: oracle\nruntime: python\n")
    (tmp_path / "__main__.py").write_text(ORACLE)
    (tmp_path / "state").mkdir()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PULUMI_BACKEND_URL": (tmp_path / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def pulumi_cli(*arguments: str) -> str:
        command = ["pulumi", "--non-interactive", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pulumi_cli("stack", "init", "dev")
    pulumi_cli("up", "--yes", "--skip-preview")
    state = json.loads(pulumi_cli("stack", "export"))["deployment"]["resources"]
    default = "pulumi:providers:command::default"
    real = {r["urn"]: r for r in state if default not in r["urn"]}
    ours = run_program(tmp_path / "__main__.py", project="oracle", dry_run=False)
    assert {r.urn for r in ours.resources} == real.keys()
    for r in ours.resources:
        other = real[r.urn]
        provider = other.get("provider", "").rpartition("::")[0]
        by_property = {key: sorted(urns) for key, urns in other.get("propertyDependencies", {}).items() if urns}
        assert (r.type, r.parent, r.custom) == (other["type"], other.get("parent"), other["custom"])
        assert r.dependencies == tuple(sorted(other.get("dependencies", [])))
        assert {key: list(urns) for key, urns in r.property_dependencies.items()} == by_property
        assert r.provider == (None if default in provider else provider or None)
        assert r.deleted_with == other.get("deletedWith")
        assert (r.protect, r.retain_on_delete) == (other.get("protect", False), other.get("retainOnDelete", False))
        assert list(r.ignore_changes) == other.get("ignoreChanges", [])
        assert list(r.additional_secret_outputs) == other.get("additionalSecretOutputs", [])


# --- size


def test_hundreds_of_resources_at_once() -> None:
    def one() -> None:
        for i in range(150):
            text(f"b{i}", word=text(f"a{i}").result)

    assert len(run_program(one, timeout_seconds=60).resources) == 301


def void(_: object) -> None:
    """For lambdas that register something."""
