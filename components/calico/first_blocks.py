"""The blocks that nodes will claim, from Calico's own rule.

Calico (libcalico-go/lib/ipam/ipam_block_reader_writer.go, randomBlockGenerator) hashes the node's name with FNV-1,
seeds Go's math/rand with it, draws the number of a block in the pool, and goes on from there to the first free one. So
a fresh cluster's blocks follow from the names of its nodes and its pools. They are foreseen, not known: nodes that draw
the same block race for it, and a cluster with a history may have claimed others.

This module needs the standard library only: a review loads it by its path, for trees that do not have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from ipaddress import IPv4Network

_LENGTH, _TAP = 607, 273
"""Go's math/rand adds the numbers 607 and 273 places back, modulo 2^64 (Mitchell and Reeds)."""
_WORD = 2**64 - 1
_LIMB = 192
"""Bits for a coefficient of a product of two polynomials with 64-bit coefficients and 607 terms: 64 + 64 + 10, and room
for the reduction."""


def foreseen_blocks(cidr: IPv4Network, block_size: int, names: Sequence[str]) -> dict[str, IPv4Network]:
    """Each node's first block in an empty pool, the nodes claiming one after the other in this order.

    Empty for blocks of a single address (Calico draws those by the clock), and where there are fewer blocks than nodes.
    """
    count = 2 ** (block_size - cidr.prefixlen) if block_size >= cidr.prefixlen else 0
    if block_size == 32 or count < len(names):
        return {}
    owners: dict[int, str] = {}
    for name in names:
        number = drawn_number(name, count)
        while number in owners:
            number = (number + 1) % count
        owners[number] = name
    size = 2 ** (32 - block_size)
    first = int(cidr.network_address)
    return {name: IPv4Network((first + number * size, block_size)) for number, name in owners.items()}


def drawn_number(name: str, count: int) -> int:
    """The number of the block, from 0, at which Calico starts to look on behalf of a node, out of `count` blocks."""
    numbers = _go_numbers(_fnv1(name.encode()))
    mask = (1 << count.bit_length()) - 1
    while True:
        # big.Int.Rand takes two 32-bit numbers for a word, the lower half first, and draws again if it is too large.
        low, high = next(numbers), next(numbers)
        if (number := (low | high << 32) & mask) < count:
            return number


def _fnv1(data: bytes) -> int:
    """Go's fnv.New32."""
    value = 2166136261
    for byte in data:
        value = value * 16777619 % 2**32 ^ byte
    return value


def _go_numbers(seed: int) -> Iterator[int]:
    """What Uint32 of Go's rand.New(rand.NewSource(seed)) returns, call by call: bits 31 to 62 of each number."""
    state = _seeded(seed % (2**31 - 1) or 89482311, 40, 20)
    state = [number ^ cooked for number, cooked in zip(state, _cooked(), strict=True)]
    tap, feed = 0, _LENGTH - _TAP
    while True:
        tap, feed = (tap - 1) % _LENGTH, (feed - 1) % _LENGTH
        state[feed] = (state[feed] + state[tap]) & _WORD
        yield state[feed] >> 31 & 2**32 - 1


def _seeded(seed: int, high: int, middle: int) -> list[int]:
    """Three numbers of a linear congruential generator for each place, shifted and combined."""
    numbers = []
    for index in range(-20, _LENGTH):
        seed = first = 48271 * seed % (2**31 - 1)
        if index >= 0:
            second = 48271 * first % (2**31 - 1)
            seed = 48271 * second % (2**31 - 1)
            numbers.append(first << high ^ second << middle ^ seed)
    return numbers


@cache
def _cooked() -> tuple[int, ...]:
    """Go's table rngCooked: the generator's state after 7.8e12 numbers from seed 1 (math/rand/gen_cooked.go).

    Instead of drawing them, the state is multiplied by x^7.8e12 modulo the generator's polynomial.
    """
    start = _seeded(1, 20, 10)
    # In the order in which the generator reads them: the oldest first.
    order = [(_LENGTH - _TAP - 1 - index) % _LENGTH for index in range(_LENGTH)]
    oldest_first = [start[place] for place in order]
    steps = 7_800_000_000_000
    jump = _power(steps)
    # The sequence as far as the last term of the sum reaches.
    sequence = oldest_first[:]
    for index in range(_LENGTH):
        sequence.append((sequence[index] + sequence[index + _LENGTH - _TAP]) & _WORD)
    products = _unpack(_pack(sequence) * _pack(jump[::-1]), 3 * _LENGTH)
    after = products[_LENGTH - 1 : 2 * _LENGTH - 1]
    state = [0] * _LENGTH
    for index, number in enumerate(after):
        state[(_LENGTH - _TAP - 1 - (index + steps)) % _LENGTH] = number
    return tuple(state)


def _power(exponent: int) -> list[int]:
    """x^exponent modulo x^607 - x^334 - 1, with coefficients modulo 2^64; the lowest power first."""
    result = [1] + [0] * (_LENGTH - 1)
    for bit in f"{exponent:b}":
        packed = _pack(result)
        result = _reduced(_unpack(packed * packed, 2 * _LENGTH))
        if bit == "1":
            result = _reduced([0, *result])
    return result


def _reduced(polynomial: list[int]) -> list[int]:
    for power in range(len(polynomial) - 1, _LENGTH - 1, -1):
        coefficient = polynomial[power]
        for lower in (power - _LENGTH, power - _TAP):
            polynomial[lower] = (polynomial[lower] + coefficient) & _WORD
    return polynomial[:_LENGTH]


def _pack(polynomial: Sequence[int]) -> int:
    """The polynomial at 2^_LIMB, so that one multiplication of integers multiplies two polynomials."""
    return int.from_bytes(b"".join(number.to_bytes(_LIMB // 8, "little") for number in polynomial), "little")


def _unpack(packed: int, length: int) -> list[int]:
    data = packed.to_bytes(length * _LIMB // 8, "little")
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), _LIMB // 8)]
