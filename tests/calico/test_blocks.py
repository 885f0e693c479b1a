"""Blocks as they are read from a cluster, and the addresses that follow from them."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.calico.blocks import claimed_pools, parse_blocks, range_of, reserved
from tests.calico.labs import SEED_BLOCKS, VARIETY, lab, pool
from tests.support.examples import examples


def test_printed_blocks_are_read() -> None:
    assert parse_blocks(json.dumps(SEED_BLOCKS), SEED_BLOCKS) == SEED_BLOCKS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must print JSON"),
        ("Warning: something\n{}", "must print JSON"),
        ("[]", "must print JSON"),
        ('{"a": ["10.244.0.0/24"]}', "no blocks were read for b"),
        ('{"a": "10.244.0.0/24", "b": []}', "the blocks of node a must be a list"),
        ('{"a": ["10.244.0.7/24"], "b": []}', "has host bits set"),
    ],
)
def test_other_output_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_blocks(text, ["a", "b"])


def test_the_ranges_of_the_seed() -> None:
    spec = lab()
    assert spec.multus is not None
    net, default = spec.multus.delegates
    assert range_of(spec, SEED_BLOCKS, "ip-10-0-2-200", net) == (
        IPv4Address("10.244.97.150"),
        IPv4Address("10.244.97.250"),
    )
    assert range_of(spec, SEED_BLOCKS, "ip1001100", default) == (
        IPv4Address("10.244.6.50"),
        IPv4Address("10.244.6.100"),
    )


def test_the_reservation_of_the_seed() -> None:
    cidrs = reserved(lab(), SEED_BLOCKS)
    # 6 CIDRs for .50 to .100 and 8 for .150 to .250, in each of three blocks.
    assert len(cidrs) == 3 * (6 + 8)
    assert cidrs[:6] == [
        "10.244.6.50/31",
        "10.244.6.52/30",
        "10.244.6.56/29",
        "10.244.6.64/27",
        "10.244.6.96/30",
        "10.244.6.100/32",
    ]


def test_a_node_without_a_block_is_named() -> None:
    with pytest.raises(ValueError, match=r"delegate net-calico: node ip1001100 has no block of pool default-ipv4"):
        reserved(lab(), {**SEED_BLOCKS, "ip1001100": ["172.16.0.0/24"]})


def test_a_block_too_small_is_named() -> None:
    small = {node: [block.replace("/24", "/26")] for node, [block] in SEED_BLOCKS.items()}
    with pytest.raises(ValueError, match=r"range 150-250 does not fit in 10.244.6.0/26 of node ip1001100"):
        reserved(lab(), small)


def test_the_pools_in_which_every_node_must_have_a_block() -> None:
    assert [p.name for p in claimed_pools(lab())] == ["default-ipv4-ippool"]
    assert [p.name for p in claimed_pools(VARIETY["cross-node"])] == ["first"]
    partial = lab(
        multus=None, calico={"pools": [pool("p", "10.244.0.0/16", nodeSelector="has(x)")]}, networks=[], workloads=[]
    )
    assert claimed_pools(partial) == []


@examples(60)
@given(data=st.data(), block_size=st.integers(23, 28))
def test_no_address_is_both_a_delegates_and_calicos(data: st.DataObject, block_size: int) -> None:
    """For any block size, ranges and order: an address is given by host-local or by calico-ipam, never by both."""
    size = 2 ** (32 - block_size)
    cuts = sorted(data.draw(st.lists(st.integers(1, size - 1), min_size=4, max_size=4, unique=True)))
    claimed = data.draw(st.lists(st.integers(0, 2 ** (block_size - 16) - 1), min_size=1, max_size=4, unique=True))
    spec = lab(
        calico={"pools": [pool("p", "10.244.0.0/16", blockSize=block_size)]},
        multus={
            "clusterNetwork": "one",
            "delegates": [
                {"name": "one", "rangeStart": cuts[0], "rangeEnd": cuts[1]},
                {"name": "two", "rangeStart": cuts[2], "rangeEnd": cuts[3]},
            ],
        },
        nodes=[
            {"name": f"n{i}", "role": "worker", "subnet": "workers", "address": f"10.0.2.{9 + i}"}
            for i in range(len(claimed))
        ],
        networks=[],
        workloads=[],
    )
    base = int(IPv4Address("10.244.0.0"))
    blocks = {f"n{i}": [str(IPv4Network((base + at * size, block_size)))] for i, at in enumerate(claimed)}
    held_back = [a for cidr in reserved(spec, blocks) for a in map(int, IPv4Network(cidr))]
    assert len(held_back) == len(set(held_back)), "an address is reserved twice"
    ours: list[int] = []
    assert spec.multus is not None
    for node in blocks:
        for delegate in spec.multus.delegates:
            first, last = range_of(spec, blocks, node, delegate)
            ours += range(int(first), int(last) + 1)
    assert len(ours) == len(set(ours)), "two delegates share an address"
    assert set(held_back) == set(ours)
