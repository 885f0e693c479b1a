"""`./lab plan --against`: the page, the comment, what they never show, and errors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.review import command
from cli.review.changes import Comparison, compare
from cli.review.pages import LIMIT, MARKER, Report, document, markdown
from engine.model import SECRET, UNKNOWN
from tests.support.graphs import STACKS
from tests.support.scratch import Scratch

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "review.md"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("review") / "project")


@pytest.fixture
def project(shared: Scratch) -> Iterator[Scratch]:
    yield shared
    shared.clean()


# --- two revisions: pages that a person can read


# A change of each shipped stack, in a copy that is named by the change.
CHANGES = {
    "mode-switch": ("cfos-egress", "encapsulation: VXLAN,", "encapsulation: VXLANCrossSubnet,"),
    "delegate-range": ("cfos-egress", "rangeStart: 150", "rangeStart: 160"),
    "kubernetes-version": ("cfos-egress", "version: 1.36.3", "version: 1.36.4"),
    "added-worker": (
        "cross-node",
        "address: 10.0.1.31}",
        "address: 10.0.1.31}\n      - {name: worker3, role: worker, subnet: nodes, address: 10.0.1.32}",
    ),
    "removed-worker": (
        "cross-node",
        "      - {name: worker2, role: worker, subnet: nodes, address: 10.0.1.31}\n",
        "",
    ),
    "larger-machines": ("cross-node", "provider: aws,", "provider: aws, instanceType: t3.xlarge,"),
    "moved-control-plane": ("packet-life", "address: 172.17.0.32", "address: 172.17.0.33"),
}


def test_the_page_of_five_changes_matches_its_golden_file(project: Scratch) -> None:
    """After an intended change, update the file with CNILAB_UPDATE_GOLDEN=1, and read the difference."""
    stacks = project.folder / "stacks"
    project.git("checkout", "--quiet", "-B", "base")
    for name, (stack, _, _) in CHANGES.items():
        (stacks / f"Pulumi.{name}.yaml").write_text((stacks / f"Pulumi.{stack}.yaml").read_text())
    for stack in STACKS:
        (stacks / f"Pulumi.{stack}.yaml").unlink()
    project.commit()
    project.git("checkout", "--quiet", "-B", "change")
    for name, (_, old, new) in CHANGES.items():
        project.edit(f"stacks/Pulumi.{name}.yaml", old, new)
    project.commit()

    done = project.lab("plan", "--against", "base", "--markdown", "--gate")

    page = re.sub(r"base \([0-9a-f]{7}\)", "base (0000000)", done.stdout)
    if os.environ.get("CNILAB_UPDATE_GOLDEN"):
        GOLDEN.write_text(page)
    assert page == GOLDEN.read_text()
    # One of the five closes the gate.
    assert done.returncode == 4, done.stderr
    assert "moved-control-plane: the control plane controlplane would be replaced: change of privateIp" in done.stderr
    assert done.stderr.count("would be replaced") == 1


def test_what_a_live_lab_cannot_take_closes_the_gate_and_comes_first(project: Scratch) -> None:
    project.git("checkout", "--quiet", "-B", "change")
    project.edit("stacks/Pulumi.cfos-egress.yaml", "blockSize: 24", "blockSize: 23")
    project.edit("stacks/Pulumi.cfos-egress.yaml", "version: 1.36.3", "version: 1.36.2")
    project.commit()
    done = project.lab("plan", "cfos-egress", "--against", "main", "--gate")
    assert done.returncode == 4, done.stderr
    head = [line for line in done.stdout.splitlines() if line.strip()][2:4]
    assert head[0].startswith("  ! a live lab cannot take this change: kubernetes.version: 1.36.3 → 1.36.2")
    assert head[1].startswith("  ! a live lab cannot take this change: calico.pools[0].blockSize: 24 → 23")
    assert "lab plan: cfos-egress: a live lab cannot take this change: calico.pools[0].blockSize" in done.stderr
    assert "the control plane" not in done.stderr


@pytest.mark.parametrize(("gate", "code"), [(True, command.GATE), (False, 0)])
def test_without_gate_what_a_live_lab_cannot_take_is_no_failure(
    gate: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("main", "0" * 40, 0, (Comparison("s", refused=("blockSize: 24 → 23",)),))
    monkeypatch.setattr(command, "_report", lambda stack, against: report)
    assert command.review("s", "main", as_json=False, as_markdown=False, out=None, gate=gate) == code
    out, err = capsys.readouterr()
    assert "a live lab cannot take this change: blockSize: 24 → 23" in out
    assert ("a live lab cannot take this change: blockSize: 24 → 23" in err) == gate


def test_what_the_policy_refuses_closes_the_gate(project: Scratch) -> None:
    project.git("checkout", "--quiet", "-B", "change")
    # policy/config.json does not allow this kind of instance.
    project.edit("stacks/Pulumi.cfos-egress.yaml", "instanceType: t3.large", "instanceType: m7i.large")
    project.commit()
    done = project.lab("plan", "cfos-egress", "--against", "main", "--gate")
    assert done.returncode == 4, done.stderr
    assert "lab plan: cfos-egress: the policy refuses this: " in done.stderr


def test_all_stacks_when_some_fail(project: Scratch, tmp_path: Path) -> None:
    """One run with everything that can be wrong with a stack: each has one line, and the others are compared."""
    stacks = project.folder / "stacks"
    text = (stacks / "Pulumi.nightly.yaml").read_text()
    project.git("checkout", "--quiet", "-B", "base")
    (stacks / "Pulumi.mended.yaml").write_text(text.replace("blockSize: 24", "blockSize: 64"))
    project.commit()
    (stacks / "Pulumi.mended.yaml").write_text(text)
    (stacks / "Pulumi.new.yaml").write_text(text)
    (stacks / "Pulumi.broken.yaml").write_text("config: [")
    (stacks / "Pulumi.nightly.yaml").write_text(text.replace("blockSize: 24", "blockSize: 64").replace("4", "0", 1))
    (stacks / "Pulumi.components.yaml").unlink()
    project.edit("stacks/Pulumi.packet-life.yaml", "replicas: 2", "replicas: 3")
    out = tmp_path / "out"

    done = project.lab("plan", "--against", "base", "--out", str(out), "--gate")

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    found = json.loads((out / "comparison.json").read_text())
    by_name = {stack["stack"]: stack for stack in found["stacks"]}
    notes = {name: stack["notes"] for name, stack in by_name.items() if stack["notes"]}
    assert all(len(lines) == 1 and "\n" not in lines[0] for lines in notes.values()), notes
    assert notes["mended"][0].startswith("at base: Pulumi.mended.yaml is not valid: calico.pools[0].blockSize: 64")
    assert notes["nightly"][0].startswith("in the working tree: Pulumi.nightly.yaml is not valid")
    assert notes["broken"][0].startswith("in the working tree: Pulumi.broken.yaml is not valid")
    assert notes["new"] == ["a new stack: ./lab plan new shows it"]
    assert notes["components"][0].startswith("stacks/Pulumi.components.yaml was removed: ")
    assert by_name["new"]["counts"]["added"] > 50
    changed = by_name["packet-life"]["changes"]
    assert [(c["action"], c["title"], c["detail"]) for c in changed] == [
        ("changed", "Deployment busybox-deployment", "spec.replicas: 2 → 3")
    ]
    # Without a valid plan of the old side, what happens to the stack is not known, so the gate is closed.
    assert found["gate"] == ["mended: what happens to its control plane is not known"]
    assert found["uncommitted"] == 6 and "uncommitted changes in 6 files" in done.stdout
    assert (out / "stacks.txt").read_text().split() == sorted(notes.keys() | {"packet-life"})
    comment = (out / "comment.md").read_text()
    untouched = ", ".join(sorted(set(STACKS) - notes.keys() - {"packet-life"}))
    assert comment.startswith(MARKER) and f"Not touched: {untouched}." in comment
    assert f"Not touched: {untouched}\n" in done.stdout


def test_each_side_runs_its_own_program(project: Scratch) -> None:
    """A change of a script changes every stack, and is shown once."""
    project.edit("components/node/join.sh", "\n", "\n# a change of this script\n")
    done = project.lab("plan", "--against", "HEAD", "--markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("+# a change of this script") == 1
    assert "`join.sh`: the same lines as in `" in done.stdout
    for stack in STACKS:
        assert f"### {stack}\n" in done.stdout


def test_a_revision_that_lacks_things(project: Scratch) -> None:
    """Revisions from before there was a program, or with one that cannot be loaded: a line for each stack."""
    project.git("checkout", "--quiet", "-B", "old")
    (project.folder / "__main__.py").unlink()
    project.commit()
    project.git("checkout", "--quiet", "main")
    done = project.lab("plan", "local", "--against", "old", "--gate")
    assert done.returncode == 4 and "there is no __main__.py" in done.stdout and "Traceback" not in done.stderr

    project.git("checkout", "--quiet", "-B", "older")
    for path in sorted((project.folder / "components").rglob("*.py")):
        path.unlink()
    project.commit()
    project.git("checkout", "--quiet", "main")
    done = project.lab("plan", "local", "--against", "older")
    assert done.returncode == 0 and "its program cannot be loaded: No module named" in done.stdout

    # The program of the working tree ends its process. Its stacks have one line each; the other side is not affected.
    (project.folder / "__main__.py").write_text("import os\nos._exit(7)\n")
    done = project.lab("plan", "local", "--against", "main")
    assert done.returncode == 1
    assert "in the working tree: its program cannot be run: it ends with exit code 7" in done.stdout


@pytest.mark.parametrize("target", ["/etc", "../../../etc"])
def test_a_revision_with_a_link_that_leads_out_is_one_line(project: Scratch, target: str) -> None:
    project.git("checkout", "--quiet", "-B", "linked")
    (project.folder / "components/outside").symlink_to(target)
    project.commit()
    project.git("checkout", "--quiet", "main")
    done = project.lab("plan", "local", "--against", "linked")
    assert done.returncode == 3 and "Traceback" not in done.stderr
    words = f"components/outside is a link to {target}, outside of the repository. Fix: take it out"
    assert words in " ".join(done.stderr.split())


@pytest.mark.parametrize("revision", ["nonsense", "", "--all", "HEAD:stacks", "main..main"])
def test_an_unknown_revision_is_one_line(project: Scratch, revision: str) -> None:
    done = project.lab("plan", "local", f"--against={revision}")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"--against {revision!r}: git knows no such commit" in done.stderr


def test_an_unknown_stack_and_no_repository(project: Scratch, tmp_path: Path) -> None:
    done = project.lab("plan", "lokal", "--against", "main")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no stack 'lokal', here or at main; there are: cfos-egress," in done.stderr
    done = project.lab("plan", "--gate")
    assert done.returncode == 2 and "--gate need --against REV" in done.stderr
    (project.folder / ".git").rename(tmp_path / "git")
    try:
        done = project.lab("plan", "local", "--against", "main")
    finally:
        (tmp_path / "git").rename(project.folder / ".git")
    assert done.returncode == 3 and "is in no git repository" in done.stderr and done.stderr.count("\n") == 1


# --- the comparison, on plans of a few resources


def urn(kind: str, name: str) -> str:
    return f"urn:pulumi:s::p::{kind}::{name}"


def resource(kind: str, name: str, *, parent: str | None = None, **more: Any) -> dict[str, Any]:
    entry = {
        "urn": urn(kind, name), "type": kind, "name": name, "parent": parent, "custom": True, "inputs": {},
        "dependencies": [], "provider": None, "deletedWith": None, "ignoreChanges": [],
    }  # fmt: skip
    entry |= more
    sources = [source for urns in entry.get("propertyDependencies", {}).values() for source in urns]
    return entry | {"dependencies": sorted({*entry["dependencies"], *sources})}


def step(node: str, phase: str, machine: str | None, **face: Any) -> list[dict[str, Any]]:
    inputs = {"node": node, "phase": phase, "variables": {}, "files": [], "scripts": {}, "timeout": 9, **face}
    made = resource("cnilab:node:Step", f"{node}-{phase}", custom=False, inputs=inputs)
    command = resource("command:remote:Command", f"{node}-{phase}", parent=made["urn"], deletedWith=machine)
    return [made, command | {"inputs": {"create": "bash -s", "stdin": SECRET}}]


def plan(*resources: Any, control_planes: tuple[str, ...] = ()) -> dict[str, Any]:
    flat = [r for item in resources for r in (item if isinstance(item, list) else [item])]
    return {"resources": flat, "outputs": {}, "controlPlanes": list(control_planes)}


def rows(comparison: Comparison) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(change.action, change.title, change.reasons) for change in comparison.changes]


INSTANCE = "aws:ec2/instance:Instance"


@pytest.mark.parametrize(
    ("kind", "old", "new", "more", "reasons"),
    [
        (INSTANCE, {"privateIp": "a"}, {"privateIp": "b"}, {}, ("change of privateIp",)),
        (INSTANCE, {"instanceType": "a"}, {"instanceType": "b"}, {}, ()),
        (INSTANCE, {"userData": "a"}, {"userData": "b"}, {}, ()),
        (INSTANCE, {"userData": "a", "userDataReplaceOnChange": True},
         {"userData": "b", "userDataReplaceOnChange": True}, {}, ("change of userData",)),
        (INSTANCE, {"rootBlockDevice": {"encrypted": False, "volumeSize": 9}},
         {"rootBlockDevice": {"encrypted": True, "volumeSize": 9}}, {}, ("change of rootBlockDevice.encrypted",)),
        (INSTANCE, {"rootBlockDevice": {"encrypted": True, "volumeSize": 9}},
         {"rootBlockDevice": {"encrypted": True, "volumeSize": 10}}, {}, ()),
        ("command:remote:Command", {"triggers": ["a"]}, {"triggers": ["a", "b"]}, {"replaceOnChanges": ["triggers[*]"]},
         ("change of triggers",)),
        ("command:remote:Command", {"create": "a"}, {"create": "b"}, {"replaceOnChanges": ["triggers[*]"]}, ()),
        ("kubernetes:core/v1:ConfigMap", {"data": {"a": "1"}}, {"data": {"a": "2"}}, {}, ("change of data.a",)),
        ("kubernetes:apps/v1:Deployment", {"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, {}, ()),
        ("kubernetes:apps/v1:Deployment", {"spec": {"selector": {"a": "b"}}}, {"spec": {"selector": {"a": "c"}}}, {},
         ("change of spec.selector.a",)),
        ("tls:index/privateKey:PrivateKey", {"algorithm": "RSA"}, {"algorithm": "ED25519"}, {},
         ("change of algorithm",)),
        ("tls:index/selfSignedCert:SelfSignedCert", {"earlyRenewalHours": 1}, {"earlyRenewalHours": 2}, {}, ()),
    ],
)  # fmt: skip
def test_inputs_that_force_a_replacement(kind: str, old: Any, new: Any, more: Any, reasons: tuple[str, ...]) -> None:
    found = compare("s", plan(resource(kind, "x", inputs=old, **more)), plan(resource(kind, "x", inputs=new, **more)))
    assert [(c.action, c.reasons) for c in found.changes] == [("replaced" if reasons else "changed", reasons)]


@pytest.mark.parametrize(
    ("old", "new", "action"), [(False, True, "replaced"), (None, True, None), (False, None, None), (True, True, None)]
)
def test_a_changed_replacement_trigger_replaces(old: Any, new: Any, action: str | None) -> None:
    """One that is added or removed does not: the engine has nothing to compare it with."""
    sides = [plan(resource(INSTANCE, "x", inputs={"ami": "a"}, replacementTrigger=trigger)) for trigger in (old, new)]
    found = [(c.action, c.reasons) for c in compare("s", *sides).changes]
    assert (
        not any(kind == "replaced" for kind, _ in found)
        if action is None
        else found == [(action, ("its replacement trigger changes from false to true",))]
    )


def test_ignored_inputs_are_not_compared() -> None:
    sides = [plan(resource(INSTANCE, "x", inputs={"ami": ami}, ignoreChanges=["ami"])) for ami in ("a", "b")]
    assert compare("s", *sides).changes == () and compare("s", *sides).same == 1


def lab(address: str) -> dict[str, Any]:
    """A control plane and a worker: machines, their steps, a provider and one object."""
    one, two = (
        resource(INSTANCE, name, inputs={"privateIp": ip}) for name, ip in (("one", address), ("two", "10.0.0.9"))
    )
    init = step("one", "init", one["urn"])
    join = step("two", "join", two["urn"])
    join[1] |= {"replaceOnChanges": ["triggers[*]"], "propertyDependencies": {"triggers": [init[1]["urn"]]}}
    join[1]["inputs"]["triggers"] = [UNKNOWN]
    join[1]["dependencies"] = [init[1]["urn"]]
    provider = resource(
        "pulumi:providers:kubernetes", "api",
        inputs={"clusterIdentifier": UNKNOWN}, propertyDependencies={"clusterIdentifier": [one["urn"]]},
    )  # fmt: skip
    thing = resource("kubernetes:core/v1:Namespace", "thing", provider=provider["urn"])
    key = resource("tls:index/privateKey:PrivateKey", "other", inputs={"algorithm": "ED25519"})
    return plan(one, two, init, join, provider, thing, key, control_planes=("one",))


def test_consequences_are_found_and_the_lost_control_plane_is_named() -> None:
    found = compare("s", lab("10.0.0.1"), lab("10.0.0.2"))
    assert rows(found) == [
        ("replaced", "Instance one", ("change of privateIp",)),
        ("replaced", "kubernetes api", ("clusterIdentifier comes from Instance one, which is replaced",)),
        ("replaced", "Namespace thing", ("its provider api is replaced",)),
        ("runs again", "init on one", ("Instance one is replaced, which deletes this too",)),
        ("runs again", "join on two", ("triggers comes from init on one, which is replaced",)),
    ]
    assert [change.follows for change in found.changes] == [False, True, True, True, True]
    assert found.same == 2
    assert found.control_planes == ("one would be replaced: change of privateIp (Instance one)",)


def test_a_replaced_worker_does_not_close_the_gate() -> None:
    before, after = lab("10.0.0.1"), lab("10.0.0.1")
    for side, ip in ((before, "10.0.0.9"), (after, "10.0.0.8")):
        next(r for r in side["resources"] if r["urn"].endswith("::two"))["inputs"]["privateIp"] = ip
    found = compare("s", before, after)
    assert {change.title for change in found.changes} == {"Instance two", "join on two"}
    assert found.control_planes == ()


def test_a_removed_control_plane_is_named() -> None:
    before = lab("10.0.0.1")
    after = plan(*(r for r in before["resources"] if r["name"] == "other"))
    found = compare("s", before, after)
    assert {change.action for change in found.changes} == {"removed"} and len(found.changes) == 6
    assert found.control_planes == ("one would be removed: Instance one is no longer there",)


@pytest.mark.parametrize("was_secret", [False, True])
def test_a_value_that_is_secret_on_one_side_is_hidden_on_both(was_secret: bool) -> None:
    """A value that is secret on one side only is the same secret on the other."""
    faces = [
        {
            "variables": {"TOKEN": value, "NAME": name},
            "files": [{"path": "/etc/x.json", "mode": "0600", "content": {"token": value, "more": [value, name]}}],
        }
        for value, name in (("hunter2", "a"), (SECRET, "b"))
    ]
    before, after = (plan(step("n", "p", None, **face)) for face in (faces[::-1] if was_secret else faces))
    found = compare("s", before, after)
    report = Report("main", "0" * 40, 0, (found,))
    text = markdown(report) + json.dumps(document(report))
    assert "hunter2" not in text and "TOKEN" in text
    assert "NAME" in text


def test_json_inside_text_is_compared_leaf_by_leaf() -> None:
    kind = "kubernetes:k8s.cni.cncf.io/v1:NetworkAttachmentDefinition"
    sides = [
        plan(resource(kind, "n", inputs={"spec": {"config": json.dumps({"type": "bridge", "mtu": mtu, "vlan": 1})}}))
        for mtu in (1400, 1450)
    ]
    [change] = compare("s", *sides).changes
    assert change.detail == "spec.config.mtu: 1400 → 1450"
    assert [line for line in change.parts[0].diff if line[0] in "+-"] == ["-    mtu: 1400", "+    mtu: 1450"]


# --- the comment's limits


def big(count: int, lines: int) -> Report:
    text = "".join(f"line {index} ä\n" for index in range(lines))
    made = [
        resource("kubernetes:core/v1:Service", f"{index:04d}", inputs={"text": f"{index}\n{text}"})
        for index in range(count)
    ]
    stacks = tuple(compare(stack, plan(), plan(*made)) for stack in ("one", "two", "three"))
    return Report("main", "0" * 40, 0, stacks)


@pytest.mark.parametrize(("count", "lines"), [(1, 3), (400, 10), (3, 9000), (3000, 1)])
def test_the_comment_leaves_out_whole_resources(count: int, lines: int) -> None:
    page = markdown(big(count, lines))
    assert len(page.encode()) <= LIMIT
    assert page.count("<details>") == page.count("</details>") and page.count("```") % 2 == 0
    for section in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        shown = section.count("<details>")
        left_out = [int(number) for number in re.findall(r"\*(\d+) more resources? do", section)]
        assert shown + sum(left_out) == count
        assert bool(left_out) is (count > 1)
        # Each stack has a share, so the many resources of the first one do not crowd out the others.
        assert shown or lines > 1000


def test_text_of_the_change_cannot_become_markup() -> None:
    """Names and lines of a change must not end a fence, open a tag, mention a user or control a terminal."""
    text = "```\n@everyone <img src=x>\n````\n\x1b[31m red\n"
    made = resource("kubernetes:core/v1:Service", "x", inputs={"metadata": {"name": "<b>@you`</b>"}, "text": text})
    page = markdown(Report("main", "0" * 40, 0, (compare("s", plan(), plan(made)),), ("a `note` <i>",)))
    before, shown, after = page.split("`````")
    assert shown.startswith("diff\n") and "@everyone" in shown
    assert "<b>@you" not in before + after and "<code>Service &lt;b&gt;@you`&lt;/b&gt;</code>" in before
    assert "\x1b" not in page
    assert "> ``a `note` <i>``" in page
