"""Waits until the nodes' datapath follows a change of Calico's settings.

`up` ends when the API has the new settings. Each node's Felix and BIRD read them from there, and for another
encapsulation Felix restarts first. Until then the routes are those of before, and `verify` would find failures that
are gone a few seconds later.
"""

from __future__ import annotations

import sys

from cli.errors import CommandError
from cli.live.stack import live
from components.slowdown import scaled
from components.spec.addresses import given_mtu
from components.spec.models import Lab
from components.verify.model import Expectation, Topic
from components.verify.waiting import missing_of, verify_until

TIMEOUT_SECONDS = 90.0
"""Felix looks at all routes and forwarding entries again after this time (routeRefreshInterval, default 90 s)."""

_TOPICS = {Topic.LINK, Topic.ROUTE, Topic.ENCRYPTED, Topic.NEIGHBOUR, Topic.FDB, Topic.BGP}


def has_to_follow(before: Lab, lab: Lab) -> bool:
    """Whether Felix or BIRD has to do something on nodes that were there before: other settings of Calico, among them
    the MTU that follows from the network's, or another AS number of a node."""
    there = {node.name: node.as_number for node in before.nodes}
    renumbered = any(there.get(node.name, node.as_number) != node.as_number for node in lab.nodes)
    return before.calico != lab.calico or given_mtu(before) != given_mtu(lab) or renumbered


def wait_for_datapath(stack: str) -> None:
    """Wait until every node's devices, routes and sessions are as expected, and say what is missing meanwhile.

    What never comes is no failure of `up`, whose work is done: `verify` explains it.
    """
    try:
        lab = live(stack)
    except CommandError as error:
        print(f"lab up: it was not looked at whether the nodes follow the change: {error}", file=sys.stderr)
        return
    print("lab up: waiting until every node follows the change of Calico's settings", file=sys.stderr)
    seconds = scaled(TIMEOUT_SECONDS)
    reading, results = verify_until(lab, seconds, lambda line: print(f"lab up: {line}", file=sys.stderr), is_of_node)
    if missing := reading.no_api or missing_of(results):
        print(f"lab up: after {seconds:.0f} s: {missing}. Fix: ./lab verify {stack}", file=sys.stderr)


def is_of_node(expectation: Expectation) -> bool:
    """Whether Felix or BIRD makes it on a node. What a pod has was made when the pod started, and stays."""
    return expectation.topic in _TOPICS and expectation.pod is None
