"""Sums of products that stay in the processor's registers while they grow, for compiled functions.

Of 32 registers, 24 hold sums: six places by four vectors of outputs. Each number of a value is multiplied
with four vectors of weights, each vector of weights with six numbers, so that the processor multiplies twice
in every cycle and reads not even once.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from dlgenome.attribution.vectors.numbers import (
    BFLOATS,
    FLOATS,
    LANES,
    call,
    in_llvm,
    number_everywhere,
    place_in,
    prefetch,
    put_vector,
    vector_at,
)

PLACES = 6
"""That are summed up at once."""
PANEL = 4
"""Vectors of outputs, at most."""
_WHOLE = ir.IntType(64)


def panel_of_sums(n_vectors: int) -> Any:
    """The function that makes sums of products at places, of some vectors of outputs."""

    @in_llvm
    def panel(
        typing: Any, values: Any, value: Any, apart: Any, n_places: Any, taps: Any, tap_apart: Any,
        channels: Any, weights: Any, weight: Any, sums: Any, place: Any, sums_apart: Any, onto: Any,
    ) -> Any:  # fmt: skip
        """Put the sums over taps and channels at ``place``, or add them to what is there.

        Values and weights are both float32 numbers, or both pairs of bfloat16, so half as many channels.
        Values of places begin at ``value``, each ``apart`` numbers from the next, those of sums
        ``sums_apart``; weights are (taps, channels, outputs) from ``weight`` on, and the place that a tap
        sees is ``tap_apart`` numbers after that of the tap before. Six places at a time, so up to five more
        than asked for. What is there is added last: so many numbers one by one would round more than these
        and those apart.
        """
        signature = types.void(
            values, value, apart, n_places, taps, tap_apart, channels, weights, weight, sums, place,
            sums_apart, onto,
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, value, apart, n_places, taps, tap_apart, channels = arguments[:7]
            weights, weight, sums, place, sums_apart, onto = arguments[7:]
            kinds = signature.args
            seen = place_in(context, builder, kinds[0], values, value)
            used = place_in(context, builder, kinds[7], weights, weight)
            made = place_in(context, builder, kinds[9], sums, place)
            block = _Block(builder, n_vectors, _holds_pairs(kinds[0]))
            steps = _whole(0), n_places, _whole(PLACES)
            with cgutils.for_range_slice(builder, *steps, intp=_WHOLE) as (at, _):
                rows = builder.gep(seen, [builder.mul(at, apart)])
                there = builder.gep(made, [builder.mul(at, sums_apart)])
                block.clear()
                with cgutils.for_range(builder, taps, intp=_WHOLE) as tap:
                    looks = builder.gep(rows, [builder.mul(tap.index, tap_apart)])
                    passed = builder.mul(builder.mul(tap.index, channels), _whole(n_vectors * LANES))
                    block.add_products(looks, apart, builder.gep(used, [passed]), channels)
                block.put(there, sums_apart, onto)
            return context.get_dummy_value()

        return signature, generate

    return panel


class _Block:
    """Writes the instructions for six places."""

    def __init__(self, builder: Any, n_vectors: int, in_pairs: bool) -> None:
        self._builder, self._n_vectors, self._in_pairs = builder, n_vectors, in_pairs
        self._sums = [_variable(builder) for _ in range(PLACES * n_vectors)]

    def clear(self) -> None:
        for total in self._sums:
            self._builder.store(ir.Constant(FLOATS, [0.0] * LANES), total)

    def add_products(self, values: Any, apart: Any, weights: Any, channels: Any) -> None:
        builder = self._builder
        rows = [builder.gep(values, [builder.mul(apart, _whole(place))]) for place in range(PLACES)]
        with cgutils.for_range(builder, channels, intp=_WHOLE) as loop:
            self._add_channel(rows, weights, loop.index, channels)

    def put(self, sums: Any, apart: Any, onto: Any) -> None:
        builder, pointers = self._builder, self._places(sums, apart)
        with builder.if_then(onto):
            for total, pointer in zip(self._sums, pointers, strict=True):
                builder.store(builder.fadd(builder.load(total), vector_at(builder, pointer)), total)
        for total, pointer in zip(self._sums, pointers, strict=True):
            put_vector(builder, pointer, builder.load(total))

    def _places(self, sums: Any, apart: Any) -> list[Any]:
        """Where the sums belong."""
        builder = self._builder
        rows = [builder.gep(sums, [builder.mul(apart, _whole(place))]) for place in range(PLACES)]
        vectors = range(self._n_vectors)
        return [builder.gep(row, [_whole(number * LANES)]) for row in rows for number in vectors]

    def _add_channel(self, rows: list[Any], weights: Any, channel: Any, channels: Any) -> None:
        builder = self._builder
        used = builder.gep(weights, [builder.mul(channel, _whole(self._n_vectors * LANES))])
        vectors = [
            vector_at(builder, builder.gep(used, [_whole(number * LANES)]))
            for number in range(self._n_vectors)
        ]
        # those of the channels or the tap after these: a processor does not see that far by itself
        ahead = builder.gep(used, [builder.mul(channels, _whole(self._n_vectors * LANES))])
        for number in range(self._n_vectors):
            prefetch(builder, builder.gep(ahead, [_whole(number * LANES)]))
        for place, row in enumerate(rows):
            seen = number_everywhere(builder, builder.gep(row, [channel]))
            for number, vector in enumerate(vectors):
                total = self._sums[place * self._n_vectors + number]
                builder.store(self._product(seen, vector, builder.load(total)), total)

    def _product(self, first: Any, second: Any, added: Any) -> Any:
        if not self._in_pairs:
            return call(self._builder, f"llvm.fma.v{LANES}f32", FLOATS, first, second, added)
        pairs = [self._builder.bitcast(vector, BFLOATS) for vector in (first, second)]
        return call(self._builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, added, *pairs)


def _holds_pairs(array: Any) -> bool:
    """Whether an array, by its type, holds pairs of bfloat16 numbers and not float32 ones."""
    return bool(array.dtype == types.uint32)


def _variable(builder: Any) -> Any:
    """Room for a vector, which the compiler makes a register of."""
    return cgutils.alloca_once(builder, FLOATS)  # type: ignore[no-untyped-call]


def _whole(number: int) -> Any:
    return ir.Constant(_WHOLE, number)
