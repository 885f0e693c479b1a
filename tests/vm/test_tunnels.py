"""The tests that need IPIP, WireGuard or netem of the kernel, in the virtual machine, whose kernel has them."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.vm import machine

VERIFY = "tests/verify/test_verify_replica.py::test_an_intact_lab_passes_over_one_connection_for_each_node"
SEEDS = "tests/sandbox/test_seeds.py::test_seed_00"

# What each machine runs, and how many tests pass there.
RUNS = {
    "verify on replicas": ([f"{VERIFY}[ipip]", f"{VERIFY}[wireguard]"], 2),
    "walks on replicas": (["tests/verify/test_walk.py::test_tunnels_that_not_every_kernel_makes"], 2),
    "the documents": (
        [f"{SEEDS}2_one_pod_s_packet_in_each_mode[IPIP]", f"{SEEDS}3_ipip_and_direct_routing[IPIP]"],
        2,
    ),
    "packets": (["tests/sandbox/test_data_path.py::test_pings_cross_between_the_pods_of_each_pair_of_nodes[ipip]"], 1),
    "sandboxes": (["tests/sandbox/test_tunnels.py"], 3),
    "nftables": (["tests/sandbox/test_services.py", "-k", "Nftables"], 4),
    "a slow link": (["tests/verify/test_faults.py", "-k", "delay_packets"], 1),
    "an exercise on a slow link": (["tests/cli/live/test_exercise.py", "-k", "cfos-egress-link-slow"], 1),
    "the demo": (["tests/cli/sandbox/test_demo.py", "-k", "mended and packet-life"], 1),
}


@pytest.mark.timeout(0)
@pytest.mark.xdist_group("virtual machine")
@pytest.mark.parametrize("name", RUNS)
def test_in_the_virtual_machine(name: str) -> None:
    if reason := machine.missing() or machine.unasked():
        pytest.skip(reason)
    tests, count = RUNS[name]
    command = ["python3", "-m", "pytest", "-ra", "--color", "no", "-p", "no:cacheprovider", "--timeout", "0", *tests]
    result = machine.run(shlex.join(command), timeout_seconds=180)
    assert result.code == 0, f"{result.output}\n{result.console[-2000:]}"
    assert re.search(rf"^=+ {count} passed(, \d+ (deselected|warnings?))* in ", result.output, re.MULTILINE), (
        result.output
    )
