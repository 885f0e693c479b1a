"""`./lab new NAME`: writes the file of a new stack, with workloads between which one can walk.

The file is a copy of another stack's (`--from`), or follows from the answers to a few questions. Its plan is made
before it is written, so what is written can be planned. A file that exists is never overwritten.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from cli import project
from cli.errors import FAILED, USAGE, CommandError
from cli.plan.policy import violations
from cli.plan.program import planned
from cli.project import stack_file, stack_files
from components.spec.load import load_stack_file
from components.spec.rules.machines import REGION, placeholders

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
_SCHEMA = "# yaml-language-server: $schema=schema.json\n"
_EXAMPLE_ADDRESS = "203.0.113.7"
"""A documentation address (RFC 5737). `up` refuses it and says what to write."""

Ask = Callable[[str], str]
"""Shows a question and returns the line that was typed. Raises EOFError."""


@dataclass(frozen=True)
class Answers:
    """`where`: local or aws. `address`: the operator's, for EC2. `second`: whether pods get a second interface."""

    where: str
    region: str
    address: str
    workers: int
    encapsulation: str
    second: bool


def run(name: str, source: str | None, ask: Ask = input) -> int:
    """Write stacks/Pulumi.NAME.yaml. Returns 0. Raises CommandError, SpecError."""
    if not _NAME.fullmatch(name):
        raise CommandError(
            f"{name!r} cannot be the name of a stack: write up to 30 lower-case letters, digits and hyphens, with a "
            "letter or digit at both ends",
            USAGE,
        )
    path = project.ROOT / "stacks" / f"Pulumi.{name}.yaml"
    if name in stack_files() or path.exists():
        raise CommandError(f"stacks/{path.name} exists already: choose another name, or edit that file", USAGE)
    text = _copy(source) if source is not None else _text(_answers(name, ask))
    _check(name, text)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(f"stacks/{path.name} was written by another command meanwhile", USAGE) from None
    print(f"written: stacks/{path.name}. docs/reference.md describes every key.\n\nNext")
    lab = load_stack_file(path).lab
    # Containers with systemd need root.
    up = f"{'sudo ' if lab.machines.in_containers and os.geteuid() else ''}./lab up {name}"
    for command, meaning in (
        (f"./lab plan {name}", "what `up` would make"),
        (f"./lab sandbox {name}", "its data path on this computer, in seconds"),
        (up, "the lab itself"),
    ):
        print(f"  {command:{len(name) + 14}}  {meaning}")
    for finding in placeholders(lab):
        print(f"\nBefore `up`: {finding}")
    return 0


def _copy(source: str) -> str:
    path = stack_file(source)
    load_stack_file(path)  # an invalid file is not copied
    text = path.read_text(encoding="utf-8-sig")
    head, comment = (_SCHEMA, text.removeprefix(_SCHEMA)) if text.startswith(_SCHEMA) else ("", text)
    return f"{head}# A copy of {source}.\n{comment}"


def _check(name: str, text: str) -> None:
    """Make the plan of the file before it exists. Raises CommandError, SpecError."""
    with tempfile.TemporaryDirectory(prefix="cni-lab-new.") as folder:
        draft = Path(folder) / f"Pulumi.{name}.yaml"
        draft.write_text(text, encoding="utf-8")
        file = load_stack_file(draft)
    try:
        deployment = planned(file)
    except CommandError as error:
        raise CommandError(f"a stack of this name cannot be planned: {error}", FAILED) from None
    if broken := [finding for finding in violations(deployment) if finding.mandatory]:
        raise CommandError(f"its plan breaks the policy {broken[0].rule.name}: {broken[0]}", FAILED)


# --- the questions ----------------------------------------------------------------------------------------------------


def _answers(name: str, ask: Ask) -> Answers:
    if ask is input and not sys.stdin.isatty():
        raise CommandError(
            "standard input is not a terminal, so nobody can answer questions: name a stack to copy, "
            f"--from STACK ({', '.join(stack_files())})",
            USAGE,
        )
    print(f"A new stack, {name}. Enter accepts the value in brackets.")
    print("For hosts of your own: ./lab new NAME --from components.\n")
    try:
        where = _choice(ask, "Machines: local (containers on this computer) or aws", "local", "aws")
        region = address = ""
        if where == "aws":
            region = _valid(
                ask, "AWS region", "us-west-2", lambda text: bool(REGION.fullmatch(text)), "a region of AWS"
            )
            question = "Your public address, from which alone the lab can be reached (checkip.amazonaws.com)"
            address = _valid(ask, question, _EXAMPLE_ADDRESS, _is_address, "an IPv4 address")
        number = re.compile("[0-9]|1[0-9]|20")
        workers = int(_valid(ask, "Workers, 0 to 20", "2", lambda text: bool(number.fullmatch(text)), "one of 0 to 20"))
        encapsulation = _choice(ask, "Between nodes: VXLAN, IPIP or None", "VXLAN", "IPIP", "None")
        second = _choice(ask, "A second interface for pods (Multus): yes or no", "no", "yes") == "yes"
    except (EOFError, KeyboardInterrupt):
        raise CommandError("no answer, so nothing was written", USAGE) from None
    print()
    return Answers(where, region, address, workers, encapsulation, second)


def _choice(ask: Ask, question: str, default: str, *others: str) -> str:
    words = {word.lower(): word for word in (default, *others)}
    wanted = f"one of {', '.join(words.values())}"
    return words[_valid(ask, question, default, lambda text: text.lower() in words, wanted).lower()]


def _valid(ask: Ask, question: str, default: str, accepts: Callable[[str], bool], wanted: str) -> str:
    """An answer that is accepted. `wanted`: what it must be, in words."""
    while True:
        text = ask(f"{question} [{default}]: ").strip() or default
        if accepts(text):
            return text
        print(f"  {text!r} is not {wanted}.")


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


# --- the file ---------------------------------------------------------------------------------------------------------


def _text(answers: Answers) -> str:
    """The stack file. One subnet holds all nodes: no mode needs more, and without encapsulation EC2 allows only one."""
    lines = [_SCHEMA.rstrip(), "# Written by `./lab new`. docs/reference.md describes every key.", "config:"]
    machines = "{provider: local}"
    if answers.where == "aws":
        lines.append(f"  aws:region: {answers.region}")
        machines = f"{{provider: aws, operatorCidrs: [{answers.address}/32]}}"
    lines += [
        "  cni-lab:lab:",
        f"    machines: {machines}",
        "    network:",
        "      subnets: {nodes: 10.0.1.0/24}",
        "    nodes:",
        "      - {name: control1, role: control-plane, subnet: nodes, address: 10.0.1.20}",
    ]
    for number in range(1, answers.workers + 1):
        lines.append(f"      - {{name: worker{number}, role: worker, subnet: nodes, address: 10.0.1.{29 + number}}}")
    lines.append("    calico:")
    if answers.encapsulation != "VXLAN":
        lines.append("      bgp: Enabled # BIRD writes the routes between nodes")
    lines += [
        "      pools:",
        "        - name: default-ipv4-ippool",
        "          cidr: 10.244.0.0/16",
        "          blockSize: 26",
        f"          encapsulation: {answers.encapsulation}",
    ]
    if answers.second:
        lines += [
            "    multus: {clusterNetwork: k8s-pod-network} # eth0 from Calico itself",
            "    networks: # further interfaces; each node has a bridge of its own",
            "      - {name: second, type: bridge, bridge: br-second, subnet: 10.1.128.0/24}",
        ]
    lines += [
        "    workloads:",
        "      - name: multitool",
        "        image: docker.io/praqma/network-multitool:extra",
        f"        replicas: {max(answers.workers + 1, 2)}",
        "        onControlPlane: true",
    ]
    if answers.second:
        lines.append("        networks: [{name: second}]")
    return "\n".join(lines) + "\n"
