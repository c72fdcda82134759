"""Counter-based random numbers, compiled.

numba's disk cache notices a change of the file that a function is in, but not of other files whose functions
it calls: after a change here, delete the ``__pycache__`` of this folder.
"""

from __future__ import annotations

import numpy as np

from dlgenome.compiled import compiled

# numba turns uint64 mixed with a Python integer into a float, so every constant has its type.
ZERO, ONE = np.uint64(0), np.uint64(1)
LOW_32_BITS, SHIFT_32 = np.uint64(0xFFFFFFFF), np.uint64(32)
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIER_1, MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT_30, SHIFT_27, SHIFT_31 = np.uint64(30), np.uint64(27), np.uint64(31)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """A bijective scramble of 64 bits: the output function of splitmix64 (Steele, Lea, Flood 2014)."""
    value = (value ^ (value >> SHIFT_30)) * MULTIPLIER_1
    value = (value ^ (value >> SHIFT_27)) * MULTIPLIER_2
    return value ^ (value >> SHIFT_31)


@compiled
def random_64(state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The next number of splitmix64 and the state after it; the n-th is ``mix(state + n * gamma)``."""
    state = state + GOLDEN_GAMMA
    return mix(state), state


@compiled
def stream_state(seed: np.uint64, digest: np.uint64, reference: np.uint64) -> np.uint64:
    """Where the random numbers of one reference of one sequence begin."""
    state = mix(seed + GOLDEN_GAMMA)
    state = mix((state ^ digest) + GOLDEN_GAMMA)
    return mix((state ^ reference) + GOLDEN_GAMMA)


@compiled
def random_below(bound: np.uint64, state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A uniform integer in [0, bound), 1 <= bound < 2**32, and the new state (Lemire 2019, algorithm 5)."""
    bits, state = random_64(state)
    product = (bits >> SHIFT_32) * bound
    if (product & LOW_32_BITS) < bound:
        rejected = ((LOW_32_BITS - bound) + ONE) % bound
        while (product & LOW_32_BITS) < rejected:
            bits, state = random_64(state)
            product = (bits >> SHIFT_32) * bound
    return product >> SHIFT_32, state


@compiled
def random_below_64(bound: np.uint64, state: np.uint64) -> tuple[np.uint64, np.uint64]:
    """A uniform integer in [0, bound), 1 <= bound < 2**64, and the new state."""
    rejected = (ZERO - bound) % bound
    bits, state = random_64(state)
    while bits < rejected:
        bits, state = random_64(state)
    return bits % bound, state
