"""`./lab sandbox`, and the commands that read a lab, on a sandbox under the stack's name."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import project
from cli.sandbox.choice import home
from components.sandbox import life
from components.sandbox.model import OUTSIDE
from components.sandbox.requirements import examine
from components.verify.read import api
from components.verify.read.connection import Unreachable
from components.verify.read.namespace import NamespaceAccess
from tests.support.cli import invoke as lab

STACK = "cross-node"

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stack files and .lab/ of this test alone."""
    root = tmp_path / "root"
    shutil.copytree(project.ROOT / "stacks", root / "stacks")
    monkeypatch.setattr(project, "ROOT", root)
    monkeypatch.setattr(project, "HOME", root / ".lab")
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    yield root
    for name in life.names(home()):
        life.remove(name, home())


SAYS_SO = f"sandbox: {STACK} in network namespaces of this computer, without Kubernetes"


def test_up_read_break_mend_and_down() -> None:
    assert lab("sandbox", "--list").stdout == "there is no sandbox\n"
    built = lab("sandbox", STACK)
    assert built.exit_code == 0 and f"the sandbox {STACK} is up: 3 nodes, 3 pods" in built.stdout
    assert "BGP's sessions and routes are as BIRD would have them: no BIRD runs" in built.stdout
    again = lab("sandbox", STACK)
    assert again.exit_code == 0 and f"the sandbox {STACK} is up since" in again.stdout
    (row,) = json.loads(lab("sandbox", "--list", "--json").stdout)
    assert (row["sandbox"], row["nodes"]) == (STACK, 3)

    verified = lab("verify", STACK)
    assert verified.exit_code == 0 and " 0 failed, 0 unknown" in verified.stdout and SAYS_SO in verified.stderr
    document = json.loads(lab("verify", STACK, "--json").stdout)
    assert document["sandbox"] is True
    walked = lab("walk", STACK, "multitool@worker1", "multitool@worker2", "--json")
    assert walked.exit_code == 0 and json.loads(walked.stdout)["sandbox"] is True and SAYS_SO in walked.stderr
    beyond = lab("walk", STACK, "multitool@worker1", "192.0.2.7")
    assert beyond.exit_code == 1 and beyond.stdout.endswith(
        f"{OUTSIDE} is the only address outside of the lab that answers.\n"
    )
    assert OUTSIDE not in lab("walk", STACK, "multitool@worker1", "multitool@worker2").stdout
    listed = lab("addresses", STACK, "--json")
    assert listed.exit_code == 0 and json.loads(listed.stdout)["sandbox"] is True

    refused = lab("break", STACK, "source-dest-check", "--yes")
    assert refused.exit_code == 2 and "cannot be made in a sandbox: its nodes are no EC2 instances" in refused.stderr
    assert lab("break", STACK, "proxy-arp-off", "--yes").exit_code == 0
    assert lab("verify", STACK).exit_code == 1
    mended = lab("mend", STACK)
    assert mended.exit_code == 0 and "proxy-arp-off: put back" in mended.stdout
    assert lab("verify", STACK).exit_code == 0

    down = lab("sandbox", STACK, "--down")
    assert down.exit_code == 0 and down.stdout == f"the sandbox {STACK} is gone\n"
    assert lab("sandbox", STACK, "--down").stdout == f"{STACK} has no sandbox\n"
    gone = lab("verify", STACK)
    assert gone.exit_code == 2 and f"`./lab sandbox {STACK}` for one without machines" in gone.stderr


def test_every_command_of_a_walk_can_be_typed_on_its_node(capfd: pytest.CaptureFixture[str]) -> None:
    """Also those inside a pod, although a sandbox has no `kubectl exec`. The first word of the line that walk saw, or a
    shortened line's device, is in what the command prints."""
    lab("sandbox", STACK)
    walked = json.loads(lab("walk", STACK, "multitool@worker1", "multitool@worker2", "--json").stdout)
    checks = [check for hop in walked["hops"] for check in hop["checks"]]
    inside = [check for check in checks if check["command"].startswith("ip netns exec ")]
    assert len(inside) == 8 and not [check for check in checks if "kubectl" in check["command"]]
    for check in checks:
        capfd.readouterr()
        assert lab("ssh", STACK, check["node"], "--", check["command"]).exit_code == 0, check["command"]
        assert check["seen"].split()[0].rstrip(":") in capfd.readouterr().out, check
    pinged = walked["ping"]
    assert lab("ssh", STACK, pinged["node"], "--", pinged["command"]).exit_code == 0


def test_what_is_broken_in_a_sandbox_has_a_fix_there() -> None:
    """No fix is a command that only a cluster has, and no fault is offered that only EC2 has."""
    lab("sandbox", STACK)
    listed = lab("break", STACK, "--list").stdout
    offered, _, absent = listed.partition("Not in this sandbox")
    assert "source-dest-check" in absent and "source-dest-check" not in offered
    assert "Without mend" not in offered
    lab("verify", STACK)
    assert " 0 failed" in lab("status", STACK).stdout
    for fault in ("proxy-arp-off", "nat-off", "ip-forward-off"):
        assert lab("break", STACK, fault, "--yes").exit_code == 0
    assert "not verified yet" in lab("status", STACK).stdout, "what was found before is no longer so"
    checks = json.loads(lab("verify", STACK, "--json").stdout)["checks"]
    fixes = [check["fix"] for check in checks if check["status"] != "passed"]
    assert len(fixes) > 3 and all("./lab mend" in fix or "./lab walk" in fix for fix in fixes)
    assert not [fix for fix in fixes if "kubectl" in fix or "./lab up" in fix or "calico-node" in fix]
    lab("mend", STACK)
    assert "not verified yet" in lab("status", STACK).stdout


def test_a_sandbox_that_has_ended_is_named() -> None:
    lab("sandbox", STACK)
    outputs = json.loads((home() / STACK / "state.json").read_text())["outputs"]
    lab("sandbox", STACK, "--down")
    with pytest.raises(Unreachable, match=f"`./lab sandbox {STACK}` builds it again"):
        NamespaceAccess.of("worker1", outputs["access"]["worker1"]).command(["true"])


def test_a_node_is_entered_and_the_kubeconfig_leads_to_the_api(capfd: pytest.CaptureFixture[str]) -> None:
    lab("sandbox", STACK)
    assert lab("ssh", STACK, "worker1", "--", "hostname; exit 7").exit_code == 7
    assert capfd.readouterr().out == "worker1\n"
    of_pod = lab("ssh", STACK, "multitool").stderr
    assert (
        found := re.search(r"is a pod: `\./lab ssh cross-node (\S+) -- (ip netns exec \S+) bash` enters it", of_pod)
    )
    assert lab("ssh", STACK, found[1], "--", f"{found[2]} ip -o -4 addr show eth0").exit_code == 0
    assert "10.48." in capfd.readouterr().out
    missing = lab("ssh", STACK, "worker9")
    assert missing.exit_code == 2 and "it has: control1, worker1, worker2" in missing.stderr
    config = lab("kubeconfig", STACK)
    objects = asyncio.run(api.read(config.stdout))
    assert [node["metadata"]["name"] for node in objects.of("nodes")] == ["control1", "worker1", "worker2"]
    # What a client asks to find out which kinds there are.
    paths = {"core": "/api/v1", "groups": "/apis"}
    assert json.dumps(asyncio.run(discover(config.stdout, paths["core"]))).count('"pods"') == 1
    groups = asyncio.run(discover(config.stdout, paths["groups"]))["groups"]
    assert {"crd.projectcalico.org", "k8s.cni.cncf.io"} <= {group["name"] for group in groups}


async def discover(kubeconfig: str, path: str) -> dict[str, list[dict[str, str]]]:
    import httpx

    server = api.server_of(kubeconfig)
    async with httpx.AsyncClient(base_url=server.address, verify=server.tls, trust_env=False) as client:
        return (await client.get(path)).json()  # type: ignore[no-any-return]


def test_where_the_lab_is_deployed_too_it_is_said_which_one_is_meant(elsewhere: Path) -> None:
    lab("sandbox", STACK)
    state = elsewhere / ".lab" / "state" / ".pulumi" / "stacks" / "cni-lab"
    state.mkdir(parents=True)
    (state / f"{STACK}.json").write_text("{}")
    meant = lab("verify", STACK, "--sandbox")
    assert meant.exit_code == 0 and SAYS_SO in meant.stderr
    deployed = lab("verify", STACK)
    assert deployed.exit_code != 0 and "This is the deployed lab; --sandbox means the sandbox" in deployed.stderr
    lab("sandbox", STACK, "--down")
    none = lab("verify", STACK, "--sandbox")
    assert none.exit_code == 2 and f"{STACK} has no sandbox: run `./lab sandbox {STACK}` first" in none.stderr


def test_a_changed_stack_file_is_said_so_and_rebuilt_when_asked(elsewhere: Path) -> None:
    lab("sandbox", STACK)
    file = elsewhere / "stacks" / f"Pulumi.{STACK}.yaml"
    # The first pool's word alone.
    file.write_text(file.read_text().replace("encapsulation: None", "encapsulation: VXLAN", 1))
    changed = lab("sandbox", STACK)
    assert changed.exit_code == 1 and "  calico.pools[0].encapsulation: None → VXLAN" in changed.stdout
    assert f"`./lab sandbox {STACK} --rebuild` builds it anew" in changed.stderr
    # What was built is what is checked.
    verified = lab("verify", STACK)
    assert verified.exit_code == 0 and "calico.pools[0].encapsulation: None → VXLAN" in verified.stderr
    assert lab("sandbox", STACK, "--rebuild").exit_code == 0
    verified = lab("verify", STACK)
    assert verified.exit_code == 0 and "has changed" not in verified.stderr
    links = lab("ssh", STACK, "worker1", "--", "ip link show vxlan.calico")
    assert links.exit_code == 0


def test_wrong_words_are_refused() -> None:
    for words, message in (
        (["nosuch"], "there is no stack 'nosuch'"),
        ([], "name a stack, or use --list"),
        ([STACK, "--down", "--rebuild"], "exclude one another"),
        ([STACK, "--list"], "--list takes no stack"),
    ):
        result = lab("sandbox", *words)
        assert result.exit_code == 2 and message in result.stderr, result.stderr
