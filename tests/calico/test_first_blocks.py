"""Calico's rule for a node's first block, beside what Go's own packages and real clusters gave."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

import pytest

from components.calico import first_blocks
from components.calico.blocks import foreseen
from components.calico.first_blocks import drawn_number, foreseen_blocks
from components.spec.load import load_stack_file
from tests.calico.labs import SEED_BLOCKS, lab
from tests.support.graphs import ROOT, STACKS

COUNTS = (1, 4, 16, 100, 256, 1024, 1 << 24)

# Printed by a Go program: big.Int.Rand of rand.NewSource(fnv.New32 of the name), as in Calico's randomBlockGenerator.
DRAWN = {
    "ip1001100": (0, 0, 6, 6, 6, 6, 6901766),
    "ip-10-0-2-200": (0, 1, 1, 97, 97, 970, 6694497),
    "ip-10-0-2-201": (0, 3, 12, 93, 93, 93, 6637661),
    "ip-10-0-1-100": (0, 2, 8, 53, 53, 565, 10765245),
    "one": (0, 3, 15, 61, 189, 239, 5982447),
    "node-with-a-long-name-0123456789": (0, 2, 10, 61, 234, 234, 12443882),
    "w1": (0, 3, 11, 75, 249, 761, 6100121),
    "cp1": (0, 2, 0, 82, 210, 704, 14823122),
    "a": (0, 3, 6, 38, 148, 294, 9670950),
}


LENGTH, TAP, WORD = first_blocks._LENGTH, first_blocks._TAP, first_blocks._WORD
LIMB = 192
"""Bits for a coefficient of a product of two polynomials with 64-bit coefficients and 607 terms: 64 + 64 + 10, and room
for the reduction."""


def power(exponent: int) -> list[int]:
    """x^exponent modulo x^607 - x^334 - 1, with coefficients modulo 2^64; the lowest power first."""
    result = [1] + [0] * (LENGTH - 1)
    for bit in f"{exponent:b}":
        packed = pack(result)
        result = reduced(unpack(packed * packed, 2 * LENGTH))
        if bit == "1":
            result = reduced([0, *result])
    return result


def reduced(polynomial: list[int]) -> list[int]:
    for power in range(len(polynomial) - 1, LENGTH - 1, -1):
        coefficient = polynomial[power]
        for lower in (power - LENGTH, power - TAP):
            polynomial[lower] = (polynomial[lower] + coefficient) & WORD
    return polynomial[:LENGTH]


def pack(polynomial: Sequence[int]) -> int:
    """The polynomial at 2^LIMB, so that one multiplication of integers multiplies two polynomials."""
    return int.from_bytes(b"".join(number.to_bytes(LIMB // 8, "little") for number in polynomial), "little")


def unpack(packed: int, length: int) -> list[int]:
    data = packed.to_bytes(length * LIMB // 8, "little")
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), LIMB // 8)]


@pytest.mark.parametrize("name", DRAWN)
def test_the_numbers_are_gos(name: str) -> None:
    assert tuple(drawn_number(name, count) for count in COUNTS) == DRAWN[name]


def test_the_table_is_gos() -> None:
    """Go's gen_cooked.go draws 7.8e12 numbers from seed 1. Here the state is multiplied by x^7.8e12 modulo the
    generator's polynomial."""
    start = first_blocks._seeded(1, 20, 10)
    # In the order in which the generator reads them: the oldest first.
    order = [(LENGTH - TAP - 1 - index) % LENGTH for index in range(LENGTH)]
    oldest_first = [start[place] for place in order]
    steps = 7_800_000_000_000
    jump = power(steps)
    # The sequence as far as the last term of the sum reaches.
    sequence = oldest_first[:]
    for index in range(LENGTH):
        sequence.append((sequence[index] + sequence[index + LENGTH - TAP]) & WORD)
    products = unpack(pack(sequence) * pack(jump[::-1]), 3 * LENGTH)
    after = products[LENGTH - 1 : 2 * LENGTH - 1]
    state = [0] * LENGTH
    for index, number in enumerate(after):
        state[(LENGTH - TAP - 1 - (index + steps)) % LENGTH] = number
    assert tuple(state) == first_blocks._cooked()


def test_the_blocks_of_the_seed_follow_from_the_names() -> None:
    """SEED_BLOCKS is what the author's cluster had."""
    assert foreseen(lab()) == SEED_BLOCKS


def test_a_node_whose_block_is_taken_gets_the_next_one() -> None:
    cidr = IPv4Network("10.244.0.0/22")
    found = foreseen_blocks(cidr, 24, ["ip-10-0-2-201", "one", "w1", "ip1001100"])
    assert [str(block) for block in found.values()] == [
        "10.244.3.0/24",  # draws 3
        "10.244.0.0/24",  # draws 3, and goes on from the start of the pool
        "10.244.1.0/24",
        "10.244.2.0/24",
    ]


def test_where_the_rule_does_not_tell_there_is_no_block() -> None:
    assert foreseen_blocks(IPv4Network("10.244.0.0/24"), 32, ["a"]) == {}
    assert foreseen_blocks(IPv4Network("10.244.0.0/25"), 26, ["a", "b", "c"]) == {}


@pytest.mark.parametrize("stack", STACKS)
def test_every_node_of_a_shipped_lab_has_a_block_of_its_own(stack: str) -> None:
    spec = load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab
    found = foreseen(spec)
    blocks = [block for held in found.values() for block in held]
    assert set(found) == {node.name for node in spec.nodes} and all(found.values())
    assert len(set(blocks)) == len(blocks)
