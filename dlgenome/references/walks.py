"""Eulerian paths, many walked side by side in vector instructions.

The edges left to a base are one number of 64 bits: how many lead to A, to A or C, to A, C or G, and to any,
16 bits each. One subtraction compares a pick with the first three counts at once. They are kept with 0x7FFF
more: their difference then has its top bit where the pick is below the count, and borrows nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlgenome.compiled import compiled
from dlgenome.references.random_numbers import GOLDEN_GAMMA, ONE, SHIFT_32, ZERO, mix, random_below
from dlgenome.references.stretches import N_BASES
from dlgenome.references.trees import ABSENT
from dlgenome.types import Codes

LONGEST_PACKED = 1 << 15
"""Bases in the longest sequence whose counts surely have 15 bits."""

LANES = 16
"""Walks side by side; 32 were not faster, 8 were slower."""
# The table of walks has rows of one number for each lane: the edges left to A, C, G and T, the state of the
# random numbers, the base where the walk was and the one where it is, the product whose upper half is the
# last pick, the path since codes were written last, and eight codes and eight more to be written.
STATE, BEFORE, HERE, PRODUCT, PATH = (row * LANES for row in range(N_BASES, N_BASES + 5))
EARLY, LATE, TABLE = (row * LANES for row in range(N_BASES + 5, N_BASES + 8))
BLOCK = 16
"""Steps of a path that fit into one number."""

SHIFT_15, SHIFT_16, SHIFT_48 = np.uint64(15), np.uint64(16), np.uint64(48)
# A base where a walk is: which counts the pick that led there was below, and a last bit, which is always set.
AT_A, AT_C = np.uint64(0x0001000100010001), np.uint64(0x0001000100010000)
AT_G, AT_T = np.uint64(0x0001000100000000), np.uint64(0x0001000000000000)
FIRST_THREE = AT_A ^ AT_T
SECOND, THIRD = np.uint64(0xFFFF0000), np.uint64(0xFFFF00000000)
OFFSETS = FIRST_THREE * np.uint64(0x7FFF)
ENDLESS = OFFSETS + AT_T * np.uint64(0x7FFF)  # more edges to T than any walk has steps
SURE = np.uint64(0xFFFF8000)  # a lower half with one of these bits is above every count

SHIFT_7, SHIFT_8, LOW_8_BITS = np.uint64(7), np.uint64(8), np.uint64(0xFF)
EVERY_BYTE, ALMOST = np.uint64(0x0101010101010101), np.uint64(0x7F7F7F7F7F7F7F7F)
A_BIT_OF_EACH = np.uint64(0x0102040810204080)


@compiled
def begin_walk(
    edges: NDArray[np.uint64], parents: NDArray[np.int64], first: int, table: NDArray[np.uint64], lane: int
) -> None:
    """Lay the edges that a walk may take, all but the last of each base, into its lane of the table."""
    for base in range(N_BASES):
        total, word = ZERO, OFFSETS
        for successor in range(N_BASES):
            total += edges[base, successor] - (ONE if parents[base] == successor else ZERO)
            word += total << (SHIFT_16 * np.uint64(successor))
        table[base * LANES + lane] = word
    table[HERE + lane] = (AT_A << (SHIFT_16 * np.uint64(first))) & AT_A


@compiled
def rest(table: NDArray[np.uint64], lane: int) -> None:
    """Let a lane without a walk go from T to T, so that no step needs to know that it has none."""
    table[(N_BASES - 1) * LANES + lane] = ENDLESS
    table[HERE + lane] = AT_T


@compiled
def led_to(left: np.uint64, product: np.uint64) -> np.uint64:
    """Where the pick in the upper half of ``product`` leads; ``left`` less that is without the edge."""
    # Shifted three times, as vector units are slow to multiply 64 bits.
    picks = (product >> SHIFT_32) | ((product >> SHIFT_16) & SECOND) | (product & THIRD)
    return (((left - picks) >> SHIFT_15) & FIRST_THREE) | AT_T


@compiled
def take_again(parents: NDArray[np.int64], table: NDArray[np.uint64]) -> None:
    """Draw exactly where the last draw may be biased; lead walks with none but a last edge to that."""
    for lane in range(LANES):
        if table[PRODUCT + lane] & SURE != ZERO:
            continue
        here, wrong = table[BEFORE + lane], table[HERE + lane]
        base = int(here != AT_A) + int(here == AT_G) + 2 * int(here == AT_T)
        left, product = table[base * LANES + lane] + wrong, ZERO
        state = table[STATE + lane] - GOLDEN_GAMMA
        if left >> SHIFT_48 == ZERO:
            left = OFFSETS + ((AT_A << (SHIFT_16 * np.uint64(parents[lane, base]))) & FIRST_THREE)
        else:
            pick, state = random_below(left >> SHIFT_48, state)
            product = pick << SHIFT_32
        right = led_to(left, product)
        table[base * LANES + lane], table[STATE + lane] = left - right, state
        table[HERE + lane] = right
        table[PATH + lane] += right - wrong


@compiled
def take_edges(steps: int, parents: NDArray[np.int64], table: NDArray[np.uint64]) -> None:
    """Let every walk take so many of the edges that are left, BLOCK at most.

    The loop over lanes has no branches, so that it becomes vector instructions. What they did is looked at
    afterwards, and done again where it must be.
    """
    for _ in range(steps):
        doubtful = ZERO
        for lane in range(LANES):
            here = table[HERE + lane]
            a, c, g, t = table[lane], table[LANES + lane], table[2 * LANES + lane], table[3 * LANES + lane]
            left = a if here == AT_A else t
            left = c if here == AT_C else left
            left = g if here == AT_G else left
            state = table[STATE + lane] + GOLDEN_GAMMA
            product = (mix(state) >> SHIFT_32) * (left >> SHIFT_48)
            led = led_to(left, product)
            table[lane] = a - (led if here == AT_A else ZERO)
            table[LANES + lane] = c - (led if here == AT_C else ZERO)
            table[2 * LANES + lane] = g - (led if here == AT_G else ZERO)
            table[3 * LANES + lane] = t - (led if here == AT_T else ZERO)
            table[STATE + lane], table[PRODUCT + lane] = state, product
            table[BEFORE + lane], table[HERE + lane] = here, led
            table[PATH + lane] = table[PATH + lane] + table[PATH + lane] + led
            doubtful |= ONE if product & SURE == ZERO else ZERO
        if doubtful != ZERO:
            take_again(parents, table)


@compiled
def one_bit_each(bits: np.uint64) -> np.uint64:
    """The lowest eight bits in a byte each, the highest of them in the lowest byte."""
    alone = ((bits & LOW_8_BITS) * EVERY_BYTE) & A_BIT_OF_EACH
    return ((alone + ALMOST) >> SHIFT_7) & EVERY_BYTE


@compiled
def decode(steps: int, table: NDArray[np.uint64]) -> None:
    """Turn the paths of so many steps into codes, a byte each, and begin new ones."""
    unused = np.uint64(BLOCK - steps)
    for lane in range(LANES):
        below_a = table[PATH + lane] << unused
        below_c, below_g = below_a >> SHIFT_16, below_a >> SHIFT_32
        upper, lower = ~below_c, ~(below_a ^ below_c ^ below_g)
        table[EARLY + lane] = one_bit_each(lower >> SHIFT_8) | (one_bit_each(upper >> SHIFT_8) << ONE)
        table[LATE + lane] = one_bit_each(lower) | (one_bit_each(upper) << ONE)
        table[PATH + lane] = ZERO


@compiled
def write(word: np.uint64, count: int, place: np.uint64, shuffled: Codes) -> None:
    """Write the lowest bytes of a word, the lowest first; eight become one store."""
    for byte in range(count):
        shuffled[place + np.uint64(byte)] = np.uint8(word >> np.uint64(8 * byte))


@compiled
def walk_on(
    steps: int,
    parents: NDArray[np.int64],
    table: NDArray[np.uint64],
    places: NDArray[np.int64],
    shuffled: Codes,
) -> None:
    """Let every walk take so many steps, and write them from its place in ``shuffled`` (one dimension) on."""
    for start in range(0, steps, BLOCK):
        block = min(BLOCK, steps - start)
        take_edges(block, parents, table)
        decode(block, table)
        for lane in range(LANES):
            if places[lane] == ABSENT:
                continue
            place = np.uint64(places[lane] + start)
            if block == BLOCK:
                write(table[EARLY + lane], 8, place, shuffled)
                write(table[LATE + lane], 8, place + SHIFT_8, shuffled)
            else:
                write(table[EARLY + lane], min(block, 8), place, shuffled)
                write(table[LATE + lane], max(block - 8, 0), place + SHIFT_8, shuffled)
