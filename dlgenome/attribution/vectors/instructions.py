"""Sums of products that stay in the processor's registers while they grow, for compiled functions.

Of 32 registers, 24 hold sums: six places by four vectors of outputs. Each number of a value, or each pair, is
multiplied with four vectors of weights, each vector of weights with six numbers, so that the processor
multiplies twice in every cycle and reads not even once.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from dlgenome.attribution.vectors.numbers import (
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
_WHOLE, _WORD = ir.IntType(64), ir.IntType(32)
_WORDS = ir.VectorType(_WORD, LANES)


def panel_of_sums(n_vectors: int) -> Any:
    """The function that makes sums of products at places, of some vectors of outputs."""

    @in_llvm
    def panel(
        typing: Any, values: Any, value: Any, apart: Any, steps: Any, step: Any, n_places: Any, channels: Any,
        weights: Any, weight: Any, of_outputs: Any, of_output: Any, sums: Any, place: Any, sums_apart: Any,
        onto: Any,
    ) -> Any:  # fmt: skip
        """Put the sums over channels at ``place``, or add them to what is there.

        Values and weights are both float32 numbers, or both whole numbers of sixteen bits, an even number of
        channels of them, with a step of each place and one of each output. Values of places begin at
        ``value``, each ``apart`` numbers from the next, those of sums ``sums_apart``. Six places at a time,
        so up to five more than asked for. What is there is added last: so many numbers one by one would round
        more than these and those apart.
        """
        signature = types.void(
            values, value, apart, steps, step, n_places, channels, weights, weight, of_outputs, of_output,
            sums, place, sums_apart, onto,
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, value, apart, steps, step, n_places, channels = arguments[:7]
            weights, weight, of_outputs, of_output, sums, place, sums_apart, onto = arguments[7:]
            kinds, in_pairs = signature.args, signature.args[0].dtype == types.int16

            def begin(kind: int, array: Any, number: Any) -> Any:
                pointer = place_in(context, builder, kinds[kind], array, number)
                return builder.bitcast(pointer, _WORD.as_pointer()) if in_pairs else pointer

            if in_pairs:
                apart, channels = (builder.lshr(number, _whole(1)) for number in (apart, channels))
            seen, used = begin(0, values, value), begin(7, weights, weight)
            made = place_in(context, builder, kinds[11], sums, place)
            of_rows = place_in(context, builder, kinds[3], steps, step)
            of_columns = place_in(context, builder, kinds[9], of_outputs, of_output)
            block = _Block(builder, n_vectors, in_pairs)
            turns = _whole(0), n_places, _whole(PLACES)
            with cgutils.for_range_slice(builder, *turns, intp=_WHOLE) as (at, _):
                block.clear()
                block.add_products(builder.gep(seen, [builder.mul(at, apart)]), apart, used, channels)
                if in_pairs:
                    block.in_steps(builder.gep(of_rows, [at]), of_columns)
                block.put(builder.gep(made, [builder.mul(at, sums_apart)]), sums_apart, onto)
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

    def in_steps(self, of_rows: Any, of_columns: Any) -> None:
        """Make sums of whole numbers, each times the step of its place and that of its output."""
        builder = self._builder
        columns = [
            vector_at(builder, builder.gep(of_columns, [_whole(number * LANES)]))
            for number in range(self._n_vectors)
        ]
        for place in range(PLACES):
            row = number_everywhere(builder, builder.gep(of_rows, [_whole(place)]))
            for number, column in enumerate(columns):
                total = self._sums[place * self._n_vectors + number]
                whole = builder.sitofp(builder.bitcast(builder.load(total), _WORDS), FLOATS)
                builder.store(builder.fmul(builder.fmul(whole, column), row), total)

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
        # those of the channels after these: a processor does not see that far by itself
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
        total, *pairs = (self._builder.bitcast(vector, _WORDS) for vector in (added, first, second))
        made = call(self._builder, "llvm.x86.avx512.vpdpwssd.512", _WORDS, total, *pairs)
        return self._builder.bitcast(made, FLOATS)


def _variable(builder: Any) -> Any:
    """Room for a vector, which the compiler makes a register of."""
    return cgutils.alloca_once(builder, FLOATS)  # type: ignore[no-untyped-call]


def _whole(number: int) -> Any:
    return ir.Constant(_WHOLE, number)
