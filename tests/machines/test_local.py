"""Machines on this computer: the graph, the scripts with a stand-in for the engine, and real machines."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.machines.local.containers import built_image
from components.spec.addresses import kernel_modules
from components.spec.models import Lab
from components.spec.modes import TUNNELS, links_for_shell
from engine.model import Resource
from tests.machines.conftest import (
    HOST_IMAGE,
    REAL_ENGINE,
    RUN_ARGS,
    Done,
    Project,
    Scripts,
    Stub,
    leftovers,
    make,
    require_engine,
    run_engine,
    small,
    ssh,
)
from tests.support.graphs import ROOT, STEP, Graph, run_lab

# All tests on real machines run in one pytest worker, because they share addresses.
pytestmark = pytest.mark.xdist_group("hosts")

LOCAL = "command:local:Command"
MACHINE, NETWORK, ENGINE = "local-machine.sh", "local-network.sh", "local-engine.sh"
SCRIPT = ROOT / "components" / "machines" / MACHINE


# --- the graph --------------------------------------------------------------------------------------------------------


def spec(**changes: Any) -> dict[str, Any]:
    return {"machines": {"provider": "local"}, **changes}


def of_script(graph: Graph, script: str) -> list[Resource]:
    return [r for r in graph.of_type(LOCAL) if f"/{script} " in r.inputs["create"]]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return run_lab(spec(), dry_run=False)


def test_one_command_for_each_machine_and_each_subnet(graph: Graph) -> None:
    machines = {r.inputs["environment"]["ADDRESS"]: r for r in of_script(graph, MACHINE)}
    assert list(machines) == ["10.0.1.100", "10.0.2.200", "10.0.2.201"]
    networks = {r.inputs["environment"]["SUBNET"]: r for r in of_script(graph, NETWORK)}
    assert list(networks) == ["10.0.1.0/24", "10.0.2.0/24"]
    assert networks["10.0.1.0/24"].inputs["environment"]["GATEWAY"] == "10.0.1.1"
    assert {r.inputs["environment"]["MTU"] for r in networks.values()} == {"9001"}
    for machine in machines.values():
        assert graph.waits(machine, networks[machine.inputs["environment"]["SUBNET"]])
        assert machine.delete_before_replace


def test_the_engine_is_created_first_so_that_its_delete_runs_last(graph: Graph) -> None:
    (engine,) = of_script(graph, ENGINE)
    assert engine.inputs["delete"].endswith("local-engine.sh delete")
    for later in [*of_script(graph, MACHINE), *of_script(graph, NETWORK)]:
        assert graph.waits(later, engine)


def test_every_variable_of_a_machine_replaces_it(graph: Graph) -> None:
    for machine in of_script(graph, MACHINE):
        assert sorted(machine.inputs["triggers"]) == sorted(machine.inputs["environment"].values())


def test_host_keys_go_through_stdin_only_and_are_secret(graph: Graph) -> None:
    for machine in of_script(graph, MACHINE):
        assert machine.inputs["stdin"] == "<secret>"
        plain = dict(graph.plain[machine.urn])
        assert "PRIVATE KEY" in plain.pop("stdin")
        assert "PRIVATE KEY" not in json.dumps(plain)


def test_steps_are_deleted_with_their_machine(graph: Graph) -> None:
    machines = {r.inputs["environment"]["NODE"]: r for r in of_script(graph, MACHINE)}
    assert set(machines) == {"ip1001100", "ip-10-0-2-200", "ip-10-0-2-201"}
    for node, machine in machines.items():
        first = next(r for r in graph.of_type(STEP) if r.inputs["node"] == node)
        assert graph.command(first).deleted_with == machine.urn


def test_another_encapsulation_changes_only_the_check_of_the_kernel(graph: Graph) -> None:
    pool = {"name": "default-ipv4-ippool", "cidr": "10.244.0.0/16", "blockSize": 24, "encapsulation": "IPIP"}
    other = run_lab(spec(calico={"bgp": "Enabled", "pools": [pool]}), dry_run=False)
    changed = [r.name for r, s in zip(graph.of_type(LOCAL), other.of_type(LOCAL), strict=True) if r.inputs != s.inputs]
    assert changed == ["lab-machines-kernel"]


def test_names_of_nodes_and_subnets_cannot_collide() -> None:
    names = ["control", "engine", "kernel", "image", "login"]
    nodes = [{"name": n, "subnet": "control", "address": f"10.0.1.{10 + i}"} for i, n in enumerate(names)]
    nodes[0]["role"] = "control-plane"
    assert len(of_script(run_lab(spec(nodes=nodes)), MACHINE)) == 5


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({}, ["overlay", "br_netfilter", "vxlan"]),
        ({"calico": {"wireguard": True}}, ["overlay", "br_netfilter", "vxlan", "wireguard"]),
        (
            {"networks": [{"name": "x", "type": "macvlan", "master": "eth0", "subnet": "10.9.0.0/24"}]},
            ["overlay", "br_netfilter", "macvlan", "vxlan"],
        ),
        (
            {"calico": {"bgp": "Enabled", "pools": [{"name": "p", "cidr": "10.244.0.0/16", "encapsulation": "IPIP"}]}},
            ["overlay", "br_netfilter", "ipip"],
        ),
    ],
)
def test_kernel_modules_of_a_lab(changes: dict[str, Any], needs: list[str]) -> None:
    assert kernel_modules(Lab.model_validate(spec(**changes))) == needs


def test_memory_cpus_and_mounts_are_written_as_the_engine_takes_them() -> None:
    mount = {"hostPath": "/srv", "containerPath": "/mnt", "readOnly": True}
    machines = {"provider": "local", "memory": "4Gi", "cpus": 1.5, "extraMounts": [mount], "runArgs": ["--a", "b c"]}
    environment = of_script(run_lab(spec(machines=machines)), MACHINE)[0].inputs["environment"]
    assert [environment[key] for key in ("MEMORY", "CPUS", "MOUNTS", "RUN_ARGS")] == [
        "4g",
        "1.5",
        "/srv:/mnt:ro",
        "--a\nb c",
    ]


def test_a_pull_from_an_insecure_mirror_does_not_ask_for_tls(stub: Stub) -> None:
    mirrors = {"images": [{"registry": "docker.io", "mirror": "r.example:5000/hub", "insecure": True}]}
    environments = {}
    for image in (None, "r.example:5000/machine:1", "other.example/machine:1"):
        machines = {"provider": "local"} | ({"image": image} if image else {})
        [command] = of_script(run_lab(spec(machines=machines, mirrors=mirrors)), "local-image.sh")
        environments[image] = command.inputs["environment"]
    assert ["INSECURE" in environment for environment in environments.values()] == [True, True, False]
    for engine, insecure, options in (
        ("podman", "yes", ["--tls-verify=false"]),
        ("podman", "", []),
        ("docker", "yes", []),
    ):
        stub.fail(engine, "image", "inspect")
        stub.fail(engine, "pull", saying="Error: server gave HTTP response to HTTPS client")
        variables = {"ENGINE": engine, "LOGIN": "ubuntu", "IMAGE": "r.example:5000/machine:1", "INSECURE": insecure}
        refusal = stub.run("local-image.sh", "create", **variables).refusal
        assert "cannot be pulled (Error: server gave HTTP response to HTTPS client)" in refusal
        assert ("insecure-registries" in refusal) == (engine == "docker")
        assert stub.calls(engine, "pull")[-1][2:] == [*options, "r.example:5000/machine:1"]


def test_the_base_image_comes_from_a_mirror_of_docker_hub() -> None:
    mirrors = {"images": [{"registry": "docker.io", "mirror": "mirror.example/hub"}]}
    (image,) = of_script(run_lab(spec(mirrors=mirrors)), "local-image.sh")
    assert image.inputs["environment"]["BASE_IMAGE"].startswith("mirror.example/hub/library/debian@sha256:")
    assert image.inputs["environment"]["IMAGE"] == built_image()
    (image,) = of_script(run_lab(spec(machines={"provider": "local", "image": "x/y:1"})), "local-image.sh")
    assert set(image.inputs["environment"]) == {"STACK", "OWNER", "ENGINE", "LOGIN", "IMAGE"}


# --- the scripts against a stand-in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_a_machine_is_made(stub: Stub, engine: str) -> None:
    stub.environment["ENGINE"] = engine
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    done = stub.machine("create", MEMORY="4g", CPUS="1.5", MOUNTS="/srv:/mnt:ro", RUN_ARGS="--tz\nEurope/Vienna x")
    assert done.status == 0, done.stderr
    assert done.stdout == f"id-of-{stub.container()}"
    (call,) = stub.calls(engine, "create")
    text = " ".join(call)
    for words in (
        f"--name {stub.container()} --hostname n1",
        f"--label cni-lab.stack={stub.stack} --label cni-lab.owner=",
        "--ip 10.78.1.10",
        "--cpus 1.5 --memory 4g --volume /srv:/mnt:ro",
    ):
        assert words in text
    assert call[-3:] == ["--tz", "Europe/Vienna x", stub.of_machine("n1", "a", 10)["IMAGE"]]
    assert ("--systemd=always" in call) == (engine == "podman")
    # The host key went through stdin only.
    secret = stub.key("host-n1").read_text()
    assert (stub.folder / "stdin").read_text() == secret
    assert not any(line in json.dumps(stub.calls()) for line in secret.splitlines()[1:-1])


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_a_folder_that_is_not_here_is_not_made(stub: Stub, tmp_path: Path, engine: str) -> None:
    """docker would make it, empty."""
    stub.environment["ENGINE"] = engine
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    done = stub.machine("create", MOUNTS=f"{tmp_path}:/a:ro\n{tmp_path}/typo:/b:ro")
    assert done.refusal == (
        f"machines.extraMounts: {tmp_path}/typo is not on this computer; make it, or correct the path"
    )
    assert stub.calls(engine, "create") == [] and stub.there("volume") == []


def test_a_failing_engine_does_not_mean_that_the_machine_is_gone(stub: Stub) -> None:
    stub.put("container", stub.container(), stub.mine)
    stub.fail("podman", "container", "ls", saying="Error: database is locked")
    done = stub.machine("delete")
    assert done.status == 1
    assert "podman does not list its containers" in done.refusal
    assert stub.calls("podman", "rm") == []


@pytest.mark.parametrize("labels", [{}, {"cni-lab.stack": "other", "cni-lab.owner": "x"}])
@pytest.mark.parametrize("word", ["create", "delete", "update"])
def test_a_foreign_container_is_refused(stub: Stub, word: str, labels: dict[str, str]) -> None:
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    stub.put("container", stub.container(), labels)
    done = stub.machine(word)
    assert done.status == 1
    assert f"the container {stub.container()} exists in podman, and this lab did not make it" in done.refusal
    assert stub.calls("podman", "rm") == []
    assert stub.calls("podman", "create") == []


def test_deleting_something_that_is_gone_succeeds(stub: Stub) -> None:
    assert stub.machine("delete").status == 0
    assert stub.network("delete").status == 0
    assert stub.engine("delete").status == 0


def test_create_removes_a_half_made_machine_first(stub: Stub) -> None:
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    stub.put("container", stub.container(), stub.mine)
    stub.put("volume", stub.container(), stub.mine)
    assert stub.machine("create").status == 0
    order = [call[1:3] for call in stub.calls("podman") if call[1] in ("rm", "create") or call[2] in ("rm", "create")]
    assert [words[0] for words in order] == ["rm", "volume", "volume", "create"]


@pytest.mark.parametrize(
    ("failing", "says"),
    [
        (("podman", "create"), "podman cannot make n1: Error: no such runtime; see machines.runArgs"),
        (("podman", "start"), "podman cannot start n1 at 10.78.1.10: Error: no such runtime"),
        (("podman", "exec", "--interactive"), "n1 cannot be set up for SSH"),
        (("podman", "image", "inspect"), "the machine image"),
    ],
)
def test_a_failed_create_leaves_nothing(stub: Stub, failing: tuple[str, ...], says: str) -> None:
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    stub.fail(*failing, saying="trace\nError: no such runtime")
    done = stub.machine("create")
    assert done.status == 1
    assert says in done.refusal
    assert stub.there("container") == stub.there("volume") == []


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_a_machine_is_stopped_and_started(stub: Stub, engine: str) -> None:
    stub.environment["ENGINE"] = engine
    stub.put("container", stub.container(), stub.mine, running="true")
    for _ in range(2):
        assert stub.machine("stop").status == 0
    assert stub.calls(engine, "stop") == [[engine, "stop", "-t", "60", stub.container()]]
    for _ in range(2):
        assert stub.machine("start").status == 0
    assert stub.calls(engine, "start") == [[engine, "start", stub.container()]]
    stub.fail(engine, "start", saying="Error: no such runtime")
    stub.machine("stop")
    refused = stub.machine("start")
    assert f"{engine} cannot start n1 at 10.78.1.10: Error: no such runtime" in refused.refusal
    assert stub.there("container") == [stub.container()], "a machine that does not start keeps its disk"


REASON = "Error response from daemon: OCI runtime create failed: unable to apply caps: operation not permitted: unknown"


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        # docker 20.10
        (f"{REASON}\nError: failed to start containers: NAME", f"{REASON};"),
        ("Error: failed to start containers: NAME", "Error: failed to start containers: NAME;"),
        # podman 4.3, and a second error
        ("Error: unable to start container: runc: no caps\nError: no such pod", "no caps; Error: no such pod;"),
        ("a hint\nno error at all", "no error at all;"),
        # docker 26.1 and 28.5
        ("unknown flag: --no\nSee 'docker start --help'.", "unknown flag: --no;"),
        (
            "unknown flag: --no\n\nUsage:  docker start\n\nRun 'docker start --help' for more information",
            "unknown flag: --no;",
        ),
    ],
)
def test_a_refused_start_shows_the_engines_reason(stub: Stub, output: str, shown: str) -> None:
    stub.environment["ENGINE"] = "docker"
    stub.put("container", stub.container(), stub.mine, running="false")
    stub.fail("docker", "start", saying=output)
    refused = stub.machine("start")
    assert refused.status == 1 and "docker cannot start n1 at 10.78.1.10: " in refused.refusal
    assert f"{shown} see machines.runArgs" in refused.refusal


@pytest.mark.parametrize("engine", ["podman", "docker"])
@pytest.mark.parametrize(
    ("ended", "shown"),
    [
        ("255 false ", "(exit status 255)"),
        ("137 true ", "(exit status 137, out of memory: see machines.memory)"),
        ("128 false no space left on device", "(exit status 128, no space left on device)"),
    ],
)
def test_a_machine_that_stops_shows_how_it_ended_and_what_systemd_wrote(
    stub: Stub, engine: str, ended: str, shown: str
) -> None:
    stub.environment["ENGINE"] = engine
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    (stub.folder / "stops").write_text(ended)
    said = "\x1b[!p\x1b[0;1;31mFailed to allocate manager object.\x1b[0m\r\n[\x1b[0;1;31m!!!!!!\x1b[0m] Freezing.\r\n"
    (stub.folder / f"say-{engine}-logs").write_text(said)
    done = stub.machine("create")
    assert f"n1 stopped {shown} while waiting until systemd has booted n1; its last output is below" in done.refusal
    assert "of n1:\nFailed to allocate manager object.\n[!!!!!!] Freezing.\n---" in done.stderr
    # systemd writes to a terminal only.
    assert "--tty" in stub.calls(engine, "create")[0]


def test_a_machine_that_stops_without_a_word_says_so(stub: Stub) -> None:
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    (stub.folder / "stops").write_text("1 false ")
    assert "--- the last output of n1:\nnothing\n---" in stub.machine("create").stderr


def test_an_engine_that_withholds_capabilities_is_refused(stub: Stub) -> None:
    """docker 20.10 gives a privileged machine the first 38, and CRI-O then starts no privileged pod."""
    stub.environment["ENGINE"] = "docker"
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    (own,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:"))
    bits = int(own.split()[1], 16)
    if not bits >> 38:
        pytest.skip("this computer has no capability after the 38th itself")
    (stub.folder / f"say-docker-exec-{stub.container()}-cat").write_text(f"CapBnd:\t{bits & (1 << 38) - 1:016x}\n")
    done = stub.machine("create")
    newest = " ".join(str(bit) for bit in range(38, bits.bit_length()))
    assert f"docker withholds capabilities from n1 (numbers {newest} in linux/capability.h)" in done.refusal
    assert done.refusal.endswith("use podman, or docker 23 or later")
    assert stub.there("container") == stub.there("volume") == []


@pytest.mark.parametrize(
    ("servers", "refused"),
    [
        ("nameserver 192.0.2.53\n", False),
        ("nameserver 127.0.0.53\noptions edns0\n", True),
        ("nameserver 192.0.2.53\nnameserver 127.0.0.1\n", True),
        ("# none\n", True),
    ],
)
def test_machines_of_docker_get_name_servers_that_their_pods_reach(
    stub: Stub, tmp_path: Path, servers: str, refused: bool
) -> None:
    """docker's own, 127.0.0.11, is each pod itself: CoreDNS on the real docker ended with `Loop detected`."""
    if os.geteuid() != 0:
        pytest.skip("another /etc/resolv.conf needs a mount, and that needs root")
    (tmp_path / "resolv.conf").write_text(servers)
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)

    def create(**environment: str) -> str:
        other = 'mount --bind "$0" /etc/resolv.conf; [[ ! -d /run/systemd ]] || mount -t tmpfs tmpfs /run/systemd'
        done = subprocess.run(
            ["/usr/bin/unshare", "--mount", "bash", "-euc", f"{other}; exec bash {SCRIPT} create", "resolv.conf"],
            cwd=tmp_path,
            env=os.environ | stub.environment | stub.of_machine("n1", "a", 10) | {"ENGINE": "docker"} | environment,
            input=stub.key("host-n1").read_text(),
            capture_output=True,
            text=True,
            timeout=100,
        )
        return done.stderr

    said = create()
    assert ("names no server that a machine can reach" in said) == refused, said
    if not refused:
        assert "--volume /etc/resolv.conf:/etc/resolv.conf:ro" in " ".join(stub.calls("docker", "create")[0])
    own = create(MOUNTS=f"{tmp_path}/resolv.conf:/etc/resolv.conf:ro")
    assert own == "", "the stack file names a list of its own"
    assert " ".join(stub.calls("docker", "create")[-1]).count(":/etc/resolv.conf:ro") == 1


# --- waits say what they wait for ---


def when_asked(stub: Stub, times: int, words: tuple[str, ...], do: Callable[[], object]) -> threading.Thread:
    """Do it once the scripts have called this so often."""

    def watch() -> None:
        while len(stub.calls(*words)) < times:
            time.sleep(0.2)
        do()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def waits(done: Done) -> set[str]:
    """What a script said that it waits for."""
    return {it.partition(" s until ")[2] for it in done.stderr.splitlines() if it.startswith("waiting since ")}


@pytest.mark.parametrize("factor", ["", "3"])
def test_a_slow_computer_gets_more_time_for_every_wait(factor: str) -> None:
    line = "source components/machines/local/lib.sh; SECONDS=0; wait_until 1 nothing false || echo $SECONDS"
    environment = {"PATH": os.environ["PATH"], "CNILAB_SLOWDOWN": factor}
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and int(done.stdout) >= int(factor or 1)


def test_a_machine_that_boots_slowly_and_answers_late(stub: Stub) -> None:
    stub.environment["QUIET_SECONDS"] = "1"
    stub.put("container", stub.container(), stub.mine, running="true")
    boots = stub.folder / f"say-podman-exec-{stub.container()}"
    boots.write_text("starting")
    silent = stub.folder / "say-ssh-keyscan--T-2"
    silent.write_text("# 10.78.1.10: Connection refused")
    when_asked(stub, 8, ("podman", "exec"), boots.unlink)
    when_asked(stub, 8, ("ssh-keyscan",), silent.unlink)
    done = stub.machine("start")
    assert done.status == 0, done.stderr
    assert waits(done) == {
        "systemd has booted n1: systemd is starting",
        "n1 answers on SSH at 10.78.1.10 with its own host key: # 10.78.1.10: Connection refused",
    }


def test_another_run_is_waited_for_by_name(stub: Stub) -> None:
    stub.environment["QUIET_SECONDS"] = "1"
    stub.put("container", stub.container(), stub.mine, running="false")
    lock = stub.folder / "locks/stacks" / stub.stack / "machine-n1"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = stub.start(MACHINE, "stop", **stub.of_machine("n1", "a", 10))
        assert process.stderr is not None
        said = process.stderr.readline()
        fcntl.flock(held, fcntl.LOCK_UN)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.endswith(f" s until another run of this lab is done with stacks/{stub.stack}/machine-n1\n")


def test_a_long_stop_is_told_and_the_reminder_ends_with_it(stub: Stub) -> None:
    stub.environment["QUIET_SECONDS"] = "1"
    stub.put("container", stub.container(), stub.mine, running="true")
    (stub.folder / "sleep-podman-stop").write_text("4")
    done = stub.machine("stop")
    assert done.status == 0 and waits(done) == {"n1 has stopped"}
    assert "waiting" not in stub.machine("stop").stderr, "it is stopped"
    stub.put("container", stub.container(), stub.mine, running="true")
    stub.fail("podman", "stop", saying="Error: no such process")
    begin = time.monotonic()
    assert stub.machine("stop").status == 1
    assert time.monotonic() - begin < 100, "a reminder that stayed would keep the script's output open"


def test_a_check_of_a_network_leaves_nothing(stub: Stub) -> None:
    assert stub.network("check").status == 0
    assert not (stub.folder / "locks").exists()


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_ranges_of_both_engines_are_looked_at(stub: Stub, engine: str) -> None:
    stub.environment["ENGINE"] = engine
    other = {"podman": "docker", "docker": "podman"}[engine]
    (stub.folder / f"say-{other}-network-inspect").write_text("cni-lab-far-a|far|10.78.0.0/16 fd00::/64 \n")
    stub.put("network", "cni-lab-far-a", {})
    refused = stub.network("check")
    assert refused.refusal.startswith(
        f"network.subnets: 10.78.1.0/24 is in use on this computer by the lab far ({other}'s network cni-lab-far-a)"
    )
    stub.fail(other, "ps", saying="Cannot connect to the daemon")
    assert stub.network("check").status == 0, "an engine that does not run has no network here"


def test_where_no_route_can_be_set_it_is_said_once(stub: Stub) -> None:
    stub.put("network", f"cni-lab-{stub.stack}-a", stub.mine)
    stub.fail("ip", "-4", "route", "replace", saying="RTNETLINK answers: Operation not permitted")
    done = stub.network("update")
    assert done.status == 0
    assert done.stderr.count("\n") == 1
    assert "10.78.1.0/24 10.96.0.0/12 10.244.0.0/16 on this computer (RTNETLINK answers: Operation" in done.stderr


def test_the_holder_of_a_taken_address_is_named(stub: Stub) -> None:
    network = f"cni-lab-{stub.stack}-a"
    stub.put("network", network, stub.mine)
    stub.put("container", "somebody", {}, network=network, address="10.78.1.10")
    done = stub.machine("create")
    assert (
        done.refusal
        == "nodes: 10.78.1.10 of n1 is taken by the container somebody; remove that or give n1 another address"
    )


def test_the_final_cleanup_removes_only_this_labs_things(stub: Stub) -> None:
    network = f"cni-lab-{stub.stack}-a"
    for owner in (stub.mine, {"cni-lab.stack": stub.stack, "cni-lab.owner": "another clone"}, {}):
        suffix = str(len(stub.there("container")))
        stub.put("container", f"c{suffix}", owner)
        stub.put("volume", f"v{suffix}", owner)
    stub.put("network", network, stub.mine)
    assert stub.engine("delete").status == 0
    assert (stub.there("container"), stub.there("volume"), stub.there("network")) == (["c1", "c2"], ["v1", "v2"], [])


@pytest.mark.parametrize(
    ("failing", "environment", "says"),
    [
        (
            "podman",
            {},
            "machines.engine: podman does not work here (Error: cannot connect); repair it until 'podman ps'",
        ),
        ("docker", {"ENGINE": "docker"}, "machines.engine: docker does not work here"),
    ],
)
def test_a_broken_engine_is_named(stub: Stub, failing: str, environment: dict[str, str], says: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("the engine is looked at by root only")
    stub.fail(failing, "ps", saying="Error: cannot connect")
    assert says in stub.engine("create", **environment).refusal


@pytest.mark.parametrize(("engine", "info"), [("podman", "true"), ("docker", "[name=seccomp name=rootless]")])
def test_a_rootless_engine_is_refused(stub: Stub, engine: str, info: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("the engine is looked at by root only")
    (stub.folder / f"say-{engine}-info").write_text(f"{info}\n")
    refusal = stub.engine("create", ENGINE=engine).refusal
    assert refusal.startswith(f"machines.engine: {engine} is rootless here")
    (stub.folder / f"say-{engine}-info").write_text("[name=seccomp,profile=default]\n")
    assert stub.engine("create", ENGINE=engine).status == 0


def test_no_engine_at_all(stub: Stub) -> None:
    if os.geteuid() != 0:
        pytest.skip("the engine is looked at by root only")
    tools = stub.folder / "few"
    tools.mkdir()
    for tool in ("bash", "uname", "ip", "nft", "unshare", "flock", "timeout", "readlink", "dirname"):
        found = shutil.which(tool, path=stub.environment["PATH"])
        assert found
        (tools / tool).symlink_to(found)
    assert stub.engine("create", ENGINE="auto", PATH=str(tools)).refusal.startswith(
        "machines.engine: podman is not installed"
    )


@pytest.mark.parametrize("missing", ["vxlan", "ipip", "wireguard", "bridge", "nf_tables", "no-such-module"])
def test_a_kernel_that_lacks_something(stub: Stub, missing: str) -> None:
    attempt = ("nft", "list", "tables") if missing == "nf_tables" else ("ip", "link", "add", "probe", "type", missing)
    stub.fail("modprobe", "--quiet", "--", missing, saying="modprobe: not found")
    stub.fail("unshare", "--net", *attempt, saying="Error: Unknown device type.")
    variables = {"KERNEL": f"overlay {missing}", "TUNNEL_LINKS": links_for_shell(TUNNELS), "MACHINES": "1"}
    done = stub.run("local-kernel.sh", "create", **variables)
    assert done.refusal.startswith(f"this computer's kernel lacks {missing}, which this lab needs (modprobe: not found")
    assert "; Error: Unknown device type.); choose another encapsulation" in done.refusal


def test_a_kernel_that_has_a_thing_built_in(stub: Stub) -> None:
    """modprobe knows no such module, but the link can be made."""
    stub.fail("modprobe", saying="modprobe: not found")
    for module in ("vxlan", "ipip", "wireguard", "bridge", "macvlan", "nf_tables"):
        stub.fail("modprobe", "--quiet", "--", module)
    needs = "vxlan ipip wireguard bridge macvlan nf_tables"
    done = stub.run("local-kernel.sh", "create", KERNEL=needs, TUNNEL_LINKS=links_for_shell(TUNNELS), MACHINES="1")
    assert done.status == 0, done.stderr
    made = [call[6:] for call in stub.calls("unshare", "--net", "ip", "link", "add")]
    assert made[:3] == [
        ["type", "vxlan", "id", "4096", "dstport", "4789", "local", "127.0.0.1"],
        ["type", "ipip", "local", "127.0.0.1", "remote", "127.0.0.2"],
        ["type", "wireguard"],
    ]


def test_a_limit_that_is_too_low_is_refused_with_the_fix(stub: Stub) -> None:
    done = stub.run("local-kernel.sh", "create", KERNEL="overlay", TUNNEL_LINKS="", MACHINES="10000000")
    assert done.refusal.startswith("fs.inotify.max_user_instances is ")
    kept = "echo fs.inotify.max_user_instances=640000000 >>/etc/sysctl.d/90-cni-lab.conf; sysctl --system"
    assert done.refusal.endswith(kept)


# --- real machines ----------------------------------------------------------------------------------------------------


def test_create_again_update_and_delete(lab: Scripts) -> None:
    make(lab.network("create"))
    first = make(lab.machine("create"))
    assert ssh(lab, "hostname; sudo -n id -u") == (0, "n1\n0\n")
    status, said = ssh(lab, "true", key="other")
    assert (status, "Host key verification failed" in said) == (255, True)
    assert make(lab.machine("update")) == first

    # An inspection of the container shows no secret.
    secret = lab.key("host-n1").read_text().splitlines()[1:-1]
    assert not any(line in run_engine("inspect", lab.container()) for line in secret)
    # Images and pods' file systems need overlay, on a file system that is not an overlay itself.
    assert ssh(lab, "stat -fc %T /var /var/lib")[1].split() != ["overlayfs"] * 2
    assert "nodev" not in ssh(lab, "grep ' /var ' /proc/mounts")[1]

    second = make(lab.machine("create"))
    assert second != first
    assert run_engine("ps", "--filter", f"label=cni-lab.stack={lab.stack}", "--format", "{{.Names}}") == lab.container()
    make(lab.machine("delete"))
    make(lab.machine("delete"))
    make(lab.network("delete"))
    assert leftovers(lab.stack) == []


def test_networks_come_and_go_at_the_same_time(lab: Scripts) -> None:
    """As in `destroy`: while one script lists the networks, another one removes one of them."""
    for _ in range(4):
        for word in ("create", "delete"):
            runs = [lab.start(NETWORK, word, **lab.of_network(subnet)) for subnet in "ab"]
            said = [run.communicate(timeout=100)[1] for run in runs]
            assert [run.returncode for run in runs] == [0, 0], said
    assert leftovers(lab.stack) == []


def test_this_computer_routes_between_the_subnets_as_a_vpc_does(lab: Scripts) -> None:
    for subnet in "ab":
        make(lab.network("create", subnet))
        make(lab.machine("create", f"n{subnet}", subnet))
    watch = subprocess.Popen(
        [REAL_ENGINE, "exec", lab.container("nb"), "timeout", "20", "tcpdump", "-lnni", "eth0", "-c", "1",
         "icmp[icmptype] = icmp-echo and greater 8000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watch.stderr is not None
    while "listening on" not in (line := watch.stderr.readline()):
        assert line, "tcpdump ended early"
    # The MTU is the same across subnets: 8973 bytes and 28 bytes of headers make 9001, without fragments.
    status, said = ssh(lab, "ping -c 2 -W 2 -M do -s 8973 10.78.2.10", "na")
    assert (status, "ttl=63" in said) == (0, True), said
    seen, _ = watch.communicate(timeout=30)
    assert "10.78.1.10 > 10.78.2.10" in seen, "addresses are not kept between subnets"
    # The gateway's guard route refuses a Service address that was not translated, before its packet filter would.
    assert "From 10.78.1.1 icmp_seq=1 Destination Host Unreachable" in ssh(lab, "ping -c 1 -W 2 10.96.0.1", "na")[1]
    # A pod's address does not cross subnets, just as no route table of a VPC has it.
    ssh(lab, "sudo ip address add 10.244.6.9/32 dev lo", "na")
    assert ssh(lab, "ping -c 1 -W 1 -I 10.244.6.9 10.78.2.10", "na")[0] == 1


def test_pods_addresses_pass_between_nodes_of_a_subnet(lab: Scripts) -> None:
    make(lab.network("create"))
    for octet in (10, 11):
        make(lab.machine("create", f"n{octet}", octet=octet))
        other = 21 - octet
        route = f"sudo ip route add 10.244.{other}.0/24 via 10.78.1.{other}"
        pod = f"sudo ip address add 10.244.{octet}.9/32 dev lo && {route}"
        assert ssh(lab, pod, f"n{octet}", f"10.78.1.{octet}")[0] == 0
    status, said = ssh(lab, "ping -c 1 -W 2 -I 10.244.10.9 10.244.11.9", "n10")
    assert (status, "ttl=64" in said) == (0, True), said


def test_a_killed_create_can_be_repeated_and_cleaned_up(lab: Scripts) -> None:
    make(lab.network("create"))
    begun = time.monotonic()
    make(lab.machine("create"))
    whole = time.monotonic() - begun
    choose = random.Random(4)
    for number in range(6):
        secret = lab.key("host-n1").read_text()
        process = lab.start(MACHINE, "create", secret, **lab.of_machine("n1", "a", 10))
        time.sleep(choose.uniform(0.05, whole))
        # Pulumi kills only the script; a crash of the user's session kills its whole process group.
        os.kill(process.pid, signal.SIGKILL) if number % 2 else os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    make(lab.machine("create"))
    assert ssh(lab, "hostname") == (0, "n1\n")
    process = lab.start(MACHINE, "create", secret, **lab.of_machine("n1", "a", 10))
    time.sleep(whole * 0.7)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    make(lab.network("delete"))
    make(lab.engine("delete"))
    assert leftovers(lab.stack) == []


def test_the_engine_is_killed_while_it_starts_a_machine(lab: Scripts) -> None:
    """podman leaves a bridge, which is removed with its network, and an address that it may hold until the next boot.
    docker's daemon goes on with the start."""
    choose = random.Random(7)
    secret = lab.key("host-n1").read_text()
    for _ in range(4):
        make(lab.network("create"))
        process = lab.start(MACHINE, "create", secret, **lab.of_machine("n1", "a", 10))
        starting = None
        while starting is None and process.poll() is None:
            starting = next((p for p in running(f"{REAL_ENGINE}\0start\0{lab.container()}\0")), None)
        time.sleep(choose.uniform(0, 0.6))
        if starting is not None and Path(f"/proc/{starting}").exists():
            os.kill(starting, signal.SIGKILL)
        process.communicate(timeout=200)
        again = lab.machine("create")
        assert again.status == 0 or "give n1 another address" in again.refusal, again.stderr
        make(lab.network("delete"))
        make(lab.engine("delete"))
        assert leftovers(lab.stack) == []
    make(lab.network("create"))
    make(lab.machine("create", octet=11))


def running(command: str) -> list[int]:
    """The ids of processes with this command line (each argument ends with NUL)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if entry.read_text() == command:
                found.append(int(entry.parent.name))
    return found


def test_a_terminated_create_removes_what_it_made(lab: Scripts) -> None:
    make(lab.network("create"))
    process = lab.start(MACHINE, "create", lab.key("host-n1").read_text(), **lab.of_machine("n1", "a", 10))
    deadline = time.monotonic() + 60
    while not run_engine("ps", "--filter", f"name={lab.container()}", "--quiet"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert leftovers(lab.stack) != []  # the network
    make(lab.network("delete"))
    assert leftovers(lab.stack) == []


def test_a_machine_that_cannot_boot_shows_its_last_output_and_is_removed(lab: Scripts) -> None:
    make(lab.network("create"))
    done = lab.machine("create", RUN_ARGS="\n".join([*RUN_ARGS, "--entrypoint", "/bin/false"]))
    assert done.status == 1
    assert "n1 stopped (exit status 1) while waiting until systemd has booted n1" in done.refusal
    assert "--- the last output of n1:\nnothing\n---" in done.stderr
    done = lab.machine("create", RUN_ARGS="\n".join([*RUN_ARGS, "--entrypoint", "/no/such/program"]))
    assert f"{REAL_ENGINE} cannot start n1 at 10.78.1.10: Error" in done.refusal and "/no/such/program" in done.refusal
    assert run_engine("ps", "--all", "--filter", f"label=cni-lab.stack={lab.stack}", "--quiet") == ""
    done = lab.machine("create", RUN_ARGS="--no-such-option")
    # Only podman's begins with "Error: ".
    assert done.refusal.startswith(f"{REAL_ENGINE} cannot make n1: ")
    assert done.refusal.removesuffix("; see machines.runArgs, extraMounts, cpus and memory").endswith(
        ": unknown flag: --no-such-option"
    )
    done = lab.machine("create", MOUNTS="/no/such/folder:/mnt:rw")
    assert "/no/such/folder" in done.refusal and not Path("/no/such/folder").exists()


@pytest.fixture
def bare_image(tmp_path: Path) -> Any:
    """An image that contains a file named bash, and nothing that boots."""
    require_engine()
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    shutil.copy("/bin/true", tmp_path / "usr" / "bin" / "bash")
    name = f"localhost/cni-lab-test-bare:{os.getpid()}"
    archive = tmp_path / "bare.tar"
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(archive), "usr"], check=True)
    run_engine("import", str(archive), name)
    yield name
    run_engine("rmi", "--force", name)


def test_images(lab: Scripts, bare_image: str) -> None:
    found = make(lab.run("local-image.sh", "create", IMAGE=HOST_IMAGE, LOGIN="ubuntu"))
    assert found == run_engine("image", "inspect", "--format", "{{.Id}}", HOST_IMAGE)
    done = lab.run("local-image.sh", "create", IMAGE=bare_image, LOGIN="ubuntu")
    assert f"machines.image {bare_image} lacks /usr/lib/systemd/systemd /usr/sbin/sshd /usr/bin/sudo" in done.refusal
    done = lab.run("local-image.sh", "create", IMAGE="registry.invalid/machine:1", LOGIN="ubuntu")
    assert done.refusal.startswith(
        "machines.image registry.invalid/machine:1 is not on this computer and cannot be pulled"
    )
    assert leftovers(lab.stack) == []


def test_ranges_in_use_are_refused(lab: Scripts) -> None:
    make(lab.network("create"))
    wide = {"SUBNET": "10.78.0.0/16", "GATEWAY": "10.78.0.1"}
    assert f"in use on this computer by {REAL_ENGINE}'s network cni-lab-{lab.stack}-a (10.78.1.0/24)" in (
        lab.network("create", "b", **wide).refusal
    )
    loopback = {"SUBNET": "127.0.0.0/24", "GATEWAY": "127.0.0.1"}
    assert "127.0.0.0/24 is in use on this computer by the interface lo (127.0.0.1/8)" in (
        lab.network("create", "b", **loopback).refusal
    )


def test_a_lab_beside_another_is_refused_with_its_name_and_a_free_range(lab: Scripts) -> None:
    """Another lab's machines may be stopped, so that no bridge and no route has its range."""
    make(lab.network("create"))
    other = {"STACK": f"{lab.stack}-2", "NETWORK": f"cni-lab-{lab.stack}-2-a"}
    network = f"{REAL_ENGINE}'s network cni-lab-{lab.stack}-a"
    said = f"10.78.1.0/24 is in use on this computer by the lab {lab.stack} ({network})"
    for word in ("check", "create"):
        refused = lab.network(word, **other)
        assert refused.status == 1 and said in refused.refusal
        assert refused.refusal.endswith("choose another range, e.g. 10.0.1.0/24")
    assert lab.network("check").status == 0, "its own network does not count"
    assert "this lab did not make it" in lab.network("check", OWNER="SHA256:another").refusal


@pytest.mark.parametrize(("route", "refused"), [("10.72.0.0/13", True), ("10.78.1.0/24", True), ("8.0.0.0/5", False)])
def test_a_route_to_somewhere_else_is_in_use_unless_it_is_a_default_route(
    lab: Scripts, route: str, refused: bool
) -> None:
    subprocess.run(["ip", "route", "add", route, "dev", "lo"], check=True)
    try:
        said = lab.network("check").refusal
    finally:
        subprocess.run(["ip", "route", "delete", route, "dev", "lo"], check=True)
    # The range is said once.
    of_range = "" if route == "10.78.1.0/24" else f" ({route})"
    expected = f"10.78.1.0/24 is in use on this computer by a route through lo{of_range}"
    assert said.startswith(f"network.subnets: {expected}; choose another range, e.g. 10.") if refused else not said


def test_things_of_others_stay(lab: Scripts) -> None:
    make(lab.network("create"))
    network, foreign = f"cni-lab-{lab.stack}-a", f"cni-lab-{lab.stack}-foreign"
    other = {"OWNER": "SHA256:another"}
    # docker removes a network whose containers do not run.
    sleeps = ["--entrypoint", "sleep", HOST_IMAGE, "600"]
    run_engine("run", "--detach", *RUN_ARGS, "--name", foreign, "--network", network, *sleeps)
    try:
        assert "this lab did not make it" in lab.machine("create", "foreign").refusal
        assert "this lab did not make it" in lab.machine("delete", "foreign").refusal
        assert "this lab did not make it" in lab.network("delete", **other).refusal
        assert f"the network {network} cannot be removed" in lab.network("delete").refusal
        make(lab.engine("delete", **other))
        assert foreign in run_engine("ps", "--all", "--format", "{{.Names}}").split()
        assert network in leftovers(lab.stack)
    finally:
        run_engine("rm", "--force", foreign)


def test_two_creates_of_one_machine_run_one_after_the_other(lab: Scripts) -> None:
    make(lab.network("create"))
    secret = lab.key("host-n1").read_text()
    both = [lab.start(MACHINE, "create", secret, **lab.of_machine("n1", "a", 10)) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert ssh(lab, "hostname") == (0, "n1\n")


# --- with the real pulumi ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_add_replace_and_remove_a_worker_and_destroy(project: Project, lab: Scripts) -> None:
    def machine(name: str) -> str:
        return run_engine("inspect", "--format", "{{.Id}}", lab.container(name))

    project.up(small(10))
    first = project.outputs()
    assert first["w10"]["said"] == "w10\n0"
    assert first["cp"]["id"] == machine("cp")
    assert set(project.up(small(10))) == {"same"}

    changes = project.up(small(10, 11))
    # Its host key, itself and its step; and the kernel's limits are checked for one more machine.
    assert (changes["create"], changes["update"], set(changes)) == (3, 1, {"create", "update", "same"})
    assert project.outputs()["cp"] == first["cp"]

    # Another memory limit replaces the machine, with the same address and keys, and its step runs again.
    changes = project.up(small(10, 11, memory="1Gi"))
    assert changes["replace"] == 6
    assert project.outputs()["cp"]["id"] == machine("cp") != first["cp"]["id"]

    changes = project.up(small(10, memory="1Gi"))
    assert (changes["delete"], changes["update"], set(changes)) == (3, 1, {"delete", "update", "same"})
    assert leftovers(lab.stack).count(lab.container("w11")) == 0


@pytest.mark.timeout(600)
def test_destroy_after_an_interrupted_first_up_leaves_nothing(project: Project, lab: Scripts) -> None:
    project.environment["TEST_LAB"] = json.dumps(small(10))
    process = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--non-interactive"], cwd=project.folder, env=project.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while lab.container("w10") not in run_engine("ps", "--format", "{{.Names}}").split():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    project.call("cancel", "--yes")
