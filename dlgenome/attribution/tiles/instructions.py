"""The instructions of the tile registers, for compiled functions.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. Of the eight registers
four hold sums, (16 places, 16 outputs) each: two rows of places by two of outputs. Two hold values, and two
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from dlgenome.attribution.vectors.numbers import call, in_llvm, place_in

SIDE = 32
"""Places, channels and outputs that one product takes; two registers side by side."""
BLOCK = SIDE * SIDE
"""Weights of so many channels and outputs."""
_BYTE, _WHOLE, _NOTHING = ir.IntType(8), ir.IntType(64), ir.VoidType()
_HALF = SIDE // 2
_VALUES, _WEIGHTS = 4, 6
"""The first registers of two; those of sums are the first of all."""


def _all_tiles_full() -> NDArray[np.uint8]:
    """The configuration of eight registers of 16 rows of 64 bytes."""
    made = np.zeros(64, np.uint8)
    made[0] = 1
    made[16:32].view(np.uint16)[:] = 64
    made[48:56] = 16
    return made


FULL_TILES = _all_tiles_full()


@in_llvm
def configure(typing: Any, configuration: Any) -> Any:
    """Set the registers up as 64 bytes say; all zero, they are given back."""
    return types.void(configuration), _on_bytes("llvm.x86.ldtilecfg")


@in_llvm
def read_configuration(typing: Any, configuration: Any) -> Any:
    """Put how the registers are set up into 64 bytes."""
    return types.void(configuration), _on_bytes("llvm.x86.sttilecfg")


def _on_bytes(name: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = place_in(context, builder, signature.args[0], arguments[0], _whole(0))
        _call(builder, name, builder.bitcast(pointer, _BYTE.as_pointer()))
        return context.get_dummy_value()

    return generate


def block_of_sums(n_pieces: int, products: Sequence[tuple[int, int]]) -> Any:
    """The function that makes sums of products at 32 places, of 32 outputs.

    Values and weights are sums of ``n_pieces`` bfloat16 numbers, and ``products`` says which piece of a value
    is multiplied with which of a weight.
    """

    @in_llvm
    def block(
        typing: Any, values: Any, value: Any, tap_apart: Any, piece_apart: Any, weights: Any, weight: Any,
        sums: Any, place: Any, first_tap: Any, last_tap: Any, groups: Any, onto: Any,
    ) -> Any:  # fmt: skip
        """Put the sums over taps and groups of 32 channels at ``place``, or add them there.

        Values are (groups, pieces, positions, 32), from ``value`` on; weights (taps, groups, pieces, two
        registers), from ``weight`` on. A tap is ``tap_apart`` numbers from the next, a piece ``piece_apart``.
        """
        signature = types.void(
            values, value, tap_apart, piece_apart, weights, weight, sums, place, first_tap, last_tap, groups,
            onto,
        )  # fmt: skip

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, value, tap_apart, piece_apart, weights, weight = arguments[:6]
            sums, place, first_tap, last_tap, groups, onto = arguments[6:]
            kinds = signature.args
            made = place_in(context, builder, kinds[6], sums, place)
            rows = _Tiles(builder, made, 4 * SIDE)
            with builder.if_else(onto) as (added, fresh):
                with added:
                    rows.load_sums()
                with fresh:
                    rows.clear_sums()
            pointers = (
                place_in(context, builder, kinds[0], values, value),
                place_in(context, builder, kinds[4], weights, weight),
            )
            with cgutils.for_range_slice(builder, first_tap, last_tap, _whole(1), intp=_WHOLE) as (tap, _):
                at_tap = (
                    builder.gep(pointers[0], [builder.mul(tap, tap_apart)]),
                    builder.gep(
                        pointers[1], [builder.mul(builder.mul(tap, groups), _whole(BLOCK * n_pieces))]
                    ),
                )
                with cgutils.for_range(builder, groups, intp=_WHOLE) as loop:
                    group_apart = builder.mul(piece_apart, _whole(n_pieces))
                    seen = builder.gep(at_tap[0], [builder.mul(loop.index, group_apart)])
                    used = builder.gep(at_tap[1], [builder.mul(loop.index, _whole(BLOCK * n_pieces))])
                    rows.add_products(products, seen, piece_apart, used)
            rows.store_sums()
            return context.get_dummy_value()

        return signature, generate

    return block


class _Tiles:
    """Writes the instructions of one block, whose sums lie ``apart`` bytes from place to place."""

    def __init__(self, builder: Any, sums: Any, apart: int) -> None:
        self._builder, self._apart = builder, _whole(apart)
        self._sums = [
            (2 * row + column, self._at(sums, _whole((row * SIDE + column) * _HALF)))
            for row in range(2)
            for column in range(2)
        ]

    def load_sums(self) -> None:
        for register, pointer in self._sums:
            self._load(register, pointer, self._apart)

    def clear_sums(self) -> None:
        for register, _ in self._sums:
            _call(self._builder, "llvm.x86.tilezero", _byte(register))

    def store_sums(self) -> None:
        for register, pointer in self._sums:
            _call(self._builder, "llvm.x86.tilestored64", _byte(register), pointer, self._apart)

    def add_products(
        self, products: Sequence[tuple[int, int]], values: Any, piece_apart: Any, weights: Any
    ) -> None:
        """A piece that the product before has in the registers already is not loaded again."""
        here: tuple[int | None, int | None] = None, None
        for of_value, of_weight in products:
            if of_value != here[0]:
                piece = self._builder.mul(piece_apart, _whole(of_value))
                self._load_two(_VALUES, self._builder.gep(values, [piece]))
            if of_weight != here[1]:
                self._load_two(_WEIGHTS, self._builder.gep(weights, [_whole(of_weight * BLOCK)]))
            here = of_value, of_weight
            for register, _ in self._sums:
                row, column = divmod(register, 2)
                operands = register, _VALUES + row, _WEIGHTS + column
                _call(self._builder, "llvm.x86.tdpbf16ps", *map(_byte, operands))

    def _load_two(self, register: int, pointer: Any) -> None:
        """Two registers, of rows of 32 bfloat16 numbers that follow one another."""
        for number in range(2):
            self._load(register + number, self._at(pointer, _whole(number * BLOCK // 2)), _whole(2 * SIDE))

    def _load(self, register: int, pointer: Any, apart: Any) -> None:
        _call(self._builder, "llvm.x86.tileloadd64", _byte(register), pointer, apart)

    def _at(self, pointer: Any, place: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(pointer, [place]), _BYTE.as_pointer())


def _call(builder: Any, name: str, *arguments: Any) -> None:
    call(builder, name, _NOTHING, *arguments)


def _whole(number: int) -> Any:
    return ir.Constant(_WHOLE, number)


def _byte(number: int) -> Any:
    return ir.Constant(_BYTE, number)
