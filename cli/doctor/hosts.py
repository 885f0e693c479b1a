"""What existing hosts need: each is asked once over SSH, all at the same time, and nothing is changed on them."""

from __future__ import annotations

import asyncio
import shlex
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cli.doctor.model import Answer, Check, NotAsked, Once, worst
from cli.project import ROOT
from components.machines.existing.hosts import key_file, read_private_key
from components.slowdown import scaled
from components.spec.addresses import kernel_modules
from components.spec.models import ExistingMachines, JumpHost, Lab, Node
from components.spec.modes import links_for_shell
from components.verify.read.connection import Unreachable
from components.verify.read.ssh import Jump, SshAccess

HOSTS_AT_ONCE = 16
_HOST_TIMEOUT_SECONDS = 15
FULL_PERCENT = 85
"""kubelet's default imageGCHighThresholdPercent: above it images are removed, and soon after pods are evicted."""
CONTROL_PLANE_KIB = 1700 * 1024
"""kubeadm's preflight check `Mem`."""
SYSTEMS = ("ubuntu 22.04", "ubuntu 24.04", "ubuntu 26.04", "debian 12", "debian 13")
"""As in components/node/prepare.sh, which refuses other distributions, and warns of later releases."""
KUBELET_PORT = 10250

Facts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Hosts:
    """What was read: `facts` by node, and why a node has none: it does not answer, or no root shell opens there."""

    facts: Mapping[str, Facts]
    silent: Mapping[str, str]
    refused: Mapping[str, str]


def checks(lab: Lab, stack: str) -> list[Check]:
    """Empty for a lab whose machines are made by the program."""
    if not isinstance(lab.machines, ExistingMachines):
        return []
    hosts = Once(partial(read_hosts, lab))
    questions: list[tuple[str, str, Callable[[Hosts], Answer]]] = [
        ("answer", "Does SSH reach every host, with the host key of the stack file?", _answer),
        ("sudo", "May the user become root without a password?", _sudo),
        ("system", "Does every host run a known distribution, with systemd?", _system),
        ("address", "Does every host have its node's address?", partial(_address, lab)),
        ("cluster", "Is every host free of another cluster?", partial(_cluster, stack)),
        ("networks", "Is every host free of another runtime's CNI files?", partial(_networks, stack)),
        ("ports", "Are Kubernetes' ports free?", partial(_ports, lab, stack)),
        ("swap", "Is swap off?", _swap),
        ("kernel", "Does every kernel have what the lab's mode and networks need?", _kernel),
        ("memory", "Does every control plane have the memory and CPUs that kubeadm wants?", partial(_memory, lab)),
        ("disk", f"Is less than {FULL_PERCENT} % of every disk used?", _disk),
    ]
    found = [Check(f"hosts.{name}", question, partial(_ask, hosts, ask)) for name, question, ask in questions]
    jump = lab.machines.jump_host
    if jump is not None and jump.socks_port is not None:
        question = "Does the proxy listen that leads to the API through the jump host?"
        found.append(Check("hosts.proxy", question, partial(_proxy, jump, jump.socks_port)))
    return found


def _ask(hosts: Once[Hosts], ask: Callable[[Hosts], Answer]) -> Answer:
    return ask(hosts())


# --- reading ---------------------------------------------------------------------------------------------------------


def read_hosts(lab: Lab) -> Hosts:
    return asyncio.run(_read_all(lab))


async def _read_all(lab: Lab) -> Hosts:
    assert isinstance(lab.machines, ExistingMachines)
    library = ROOT / "components" / "node" / "modules.sh"
    parts = [path.read_text(encoding="utf-8") for path in (library, Path(__file__).with_name("host.sh"))]
    modules, links = " ".join(kernel_modules(lab)), links_for_shell(lab.tunnels)
    limit = asyncio.Semaphore(HOSTS_AT_ONCE)
    facts: dict[str, Facts] = {}
    silent: dict[str, str] = {}
    refused: dict[str, str] = {}

    async def read(node: Node) -> None:
        assert isinstance(lab.machines, ExistingMachines)
        variables = {"MODULES": modules, "TUNNEL_LINKS": links, "ADDRESS": str(node.address)}
        head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        program = "\n".join([head, *parts])
        async with limit:
            try:
                async with access_of(lab.machines, node).connect() as connection:
                    done = await connection.run(program, timeout_seconds=scaled(_HOST_TIMEOUT_SECONDS))
            except (Unreachable, ValueError, FileNotFoundError) as error:
                silent[node.name] = _text(error)
                return
        found = _facts(done.stdout)
        if "end" in found:
            facts[node.name] = found
        else:
            refused[node.name] = (done.stderr.strip().splitlines() or [f"exit code {done.status}"])[-1]

    await asyncio.gather(*(read(node) for node in lab.nodes))
    return Hosts(facts, silent, refused)


def _text(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        fix = "make it with ssh-keygen and let the hosts accept it, or write the path of your key"
        return f"privateKeyFile: {error.filename} does not exist. Fix: {fix}"
    return " ".join(str(error).split())


def _facts(text: str) -> Facts:
    found: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            found[key].append(value)
    return dict(found)


def access_of(spec: ExistingMachines, node: Node) -> SshAccess:
    """How `up` will reach a host. Raises ValueError or FileNotFoundError for a key file that cannot be used."""
    if node.ssh is None:
        raise ValueError("ssh.hostKey is missing")
    jump = None
    key = _key(key_file(spec, node))
    if spec.jump_host is not None:
        host = spec.jump_host
        own = _key(host.private_key_file) if host.private_key_file else key
        jump = Jump(host.address, host.port, host.user, own, host.host_key)
    return SshAccess(
        node.name,
        node.ssh.address or str(node.address),
        node.ssh.port or spec.port,
        node.ssh.user or spec.user,
        key,
        " ".join(node.ssh.host_key.split()[:2]),
        jump,
    )


def _key(file: str | None) -> str | None:
    return None if file is None else read_private_key(file)


# --- the questions ---------------------------------------------------------------------------------------------------


def _proxy(jump: JumpHost, port: int) -> Answer:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=3).close()
    except OSError as error:
        command = f"ssh -N -D {port} -p {jump.port} {jump.user}@{jump.address}"
        fix = f"run `{command}` in another terminal, with the jump host's key, and leave it running"
        return Answer("stop", f"machines.jumpHost.socksPort: 127.0.0.1:{port}: {error.strerror or error}", fix)
    return Answer("ok", f"127.0.0.1:{port} listens")


def _answer(hosts: Hosts) -> Answer:
    same: dict[str, list[str]] = defaultdict(list)
    for node, reason in hosts.silent.items():
        same[reason].append(node)
    answers = []
    for reason, nodes in same.items():
        seen, _, fix = reason.partition(". Fix: ")
        fix = fix or "start it, open its SSH port to this computer, and correct address, user, key file or hostKey"
        answers.append(Answer("stop", f"{', '.join(nodes)}: {seen}", fix))
    return worst(answers, _all(len(hosts.facts) + len(hosts.refused), "SSH reaches them"))


def _sudo(hosts: Hosts) -> Answer:
    fix = "add a file to /etc/sudoers.d there: USER ALL=(ALL) NOPASSWD: ALL"
    answers = [Answer("stop", f"{node}: {reason}", fix) for node, reason in hosts.refused.items()]
    return _of(hosts, answers, "sudo asks for no password") if not answers else worst(answers, "")


def _of(hosts: Hosts, answers: Sequence[Answer], fine: str) -> Answer:
    """The answer about the hosts that could be read. Raises NotAsked if there is none."""
    if not hosts.facts:
        raise NotAsked
    return worst(answers, _all(len(hosts.facts), fine))


def _all(count: int, fine: str) -> str:
    return f"{count} host{'s' if count != 1 else ''}: {fine}"


def _one(facts: Facts, key: str) -> str:
    return (facts.get(key) or [""])[0]


def _is_ours(facts: Facts, stack: str) -> bool:
    return _one(facts, "owner") == f"cni-lab/{stack}"


def _system(hosts: Hosts) -> Answer:
    answers = []
    for node, facts in hosts.facts.items():
        system, init = _one(facts, "system").strip(), _one(facts, "init")
        if init != "systemd":
            answers.append(
                Answer("stop", f"{node}: its first process is {init}", "take a host that boots with systemd")
            )
        if system in SYSTEMS:
            continue
        later = _is_later(system)
        fix = "use Ubuntu 22.04, 24.04 or 26.04, or Debian 12 or 13"
        seen = f"{node} runs {system}" + (", a later release, which was not tried" if later else "")
        answers.append(Answer("warn" if later else "stop", seen, fix))
    return _of(hosts, answers, "known distributions, with systemd")


def _is_later(system: str) -> bool:
    name, _, version = system.partition(" ")
    known = [each.partition(" ")[2] for each in SYSTEMS if each.startswith(f"{name} ")]
    try:
        return bool(known) and (not version or float(version) > max(map(float, known)))
    except ValueError:
        return False


def _address(lab: Lab, hosts: Hosts) -> Answer:
    answers = []
    for node in lab.nodes:
        if node.name in hosts.facts and "address" not in hosts.facts[node.name]:
            seen = f"{node.name} has no interface with {node.address}"
            answers.append(Answer("stop", seen, "correct nodes[].address: kubelet announces that address"))
    return _of(hosts, answers, "each has its node's address")


def _cluster(stack: str, hosts: Hosts) -> Answer:
    answers = []
    for node, facts in hosts.facts.items():
        owner = _one(facts, "owner")
        if owner and not _is_ours(facts, stack):
            fix = f"./lab destroy {owner.removeprefix('cni-lab/')}, or take another host"
            answers.append(Answer("stop", f"{node} belongs to {owner}", fix))
        elif not owner and (traces := facts.get("cluster")):
            fix = "take another host, or reset this one yourself: kubeadm reset"
            answers.append(Answer("stop", f"{node} has {', '.join(traces[:3])}", fix))
    return _of(hosts, answers, "no other cluster")


def _networks(stack: str, hosts: Hosts) -> Answer:
    answers = [
        Answer("warn", f"{node} has {', '.join(files)}", "up moves them aside, and destroy puts them back")
        for node, facts in hosts.facts.items()
        if not _is_ours(facts, stack) and (files := facts.get("network"))
    ]
    return _of(hosts, answers, "no CNI files of another runtime")


def _ports(lab: Lab, stack: str, hosts: Hosts) -> Answer:
    answers = []
    for node in lab.nodes:
        facts = hosts.facts.get(node.name)
        if facts is None or _is_ours(facts, stack):
            continue
        used = [port for port in facts.get("port", ()) if node.role == "control-plane" or int(port) == KUBELET_PORT]
        if used:
            fix = f"end what listens there: ss -tlnp '( sport = :{used[0]} )'"
            answers.append(Answer("stop", f"{node.name}: {', '.join(used)} in use", fix))
    return _of(hosts, answers, "Kubernetes' ports are free")


def _swap(hosts: Hosts) -> Answer:
    answers = [
        Answer("warn", f"{node}: {', '.join(facts['swap'])}", "up turns it off, also in /etc/fstab")
        for node, facts in hosts.facts.items()
        if facts.get("swap") and _one(facts, "virtual") in ("", "none")  # a container sees its host's swap
    ]
    return _of(hosts, answers, "no swap")


def _kernel(hosts: Hosts) -> Answer:
    answers = []
    for node, facts in hosts.facts.items():
        if lacks := facts.get("lacks"):
            kernel = _one(facts, "kernel")
            fix = f"install linux-modules-extra-{kernel}, take another kernel, or choose another mode"
            answers.append(Answer("stop", f"{node} ({kernel}) lacks {', '.join(lacks)}", fix))
    return _of(hosts, answers, "the kernels have what the lab needs")


def _memory(lab: Lab, hosts: Hosts) -> Answer:
    answers = []
    for node in lab.control_planes:
        facts = hosts.facts.get(node.name)
        if facts is None:
            continue
        memory, processors = int(_one(facts, "memory") or 0), int(_one(facts, "processors") or 0)
        if memory < CONTROL_PLANE_KIB:
            seen = f"{node.name} has {memory // 1024} MiB, and kubeadm wants {CONTROL_PLANE_KIB // 1024}"
            answers.append(Answer("stop", seen, "give the host more memory"))
        if processors < 2:
            answers.append(Answer("stop", f"{node.name} has {processors} CPU, and kubeadm wants 2", "give it another"))
    return _of(hosts, answers, "enough for a control plane, or workers")


def _disk(hosts: Hosts) -> Answer:
    answers = []
    for node, facts in hosts.facts.items():
        seen: dict[str, int] = {}
        for line in facts.get("disk", ()):
            words = line.split()
            seen[words[3]] = int(words[1].rstrip("%"))
        for mount, used in seen.items():
            if used > FULL_PERCENT:
                fix = "free space there: kubelet removes images, and then evicts pods"
                answers.append(Answer("warn", f"{node}: {mount} is {used} % full", fix))
    return _of(hosts, answers, "room on every disk")
