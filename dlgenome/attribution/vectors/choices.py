"""Choices among sixteen numbers at once, and rows that are no whole vectors, for compiled functions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from dlgenome.attribution.vectors.numbers import (
    FLOATS,
    LANES,
    VECTOR,
    call,
    in_llvm,
    place_in,
    register_of,
)

_INT = ir.IntType(32)
_WORDS, _TRUTHS = ir.VectorType(_INT, LANES), ir.VectorType(ir.IntType(1), LANES)


_CHOICE = register_of("truths", _TRUTHS)


@in_llvm
def first_of(typing: Any, count: Any) -> Any:
    """Which of sixteen are among the first so many."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_WORDS, ir.Undefined)
        one = builder.insert_element(nothing, builder.trunc(arguments[0], _INT), ir.Constant(_INT, 0))
        counts = builder.shuffle_vector(one, nothing, ir.Constant(_WORDS, [0] * LANES))
        return builder.icmp_signed("<", ir.Constant(_WORDS, list(range(LANES))), counts)

    return _CHOICE(count), generate


@in_llvm
def load_some(typing: Any, array: Any, place: Any, which: Any) -> Any:
    """Some of the sixteen numbers, float32 or int32, from a place on, and zeros for the others."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, which = arguments
        kind, name = _kind(signature.args[0])
        pointer = builder.bitcast(
            place_in(context, builder, signature.args[0], array, place), kind.as_pointer()
        )
        nothing, aligned = ir.Constant(kind, None), ir.Constant(_INT, 4)
        made = call(builder, f"llvm.masked.load.{name}.p0", kind, pointer, aligned, which, nothing)
        return builder.sitofp(made, FLOATS) if kind is _WORDS else made

    return VECTOR(array, place, which), generate


@in_llvm
def store_some(typing: Any, array: Any, place: Any, which: Any, vector: Any) -> Any:
    """Put some numbers of a vector into an array of float32 or int32 numbers from a place on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, which, vector = arguments
        kind, name = _kind(signature.args[0])
        value = builder.fptosi(vector, _WORDS) if kind is _WORDS else vector
        pointer = builder.bitcast(
            place_in(context, builder, signature.args[0], array, place), kind.as_pointer()
        )
        aligned = ir.Constant(_INT, 4)
        call(builder, f"llvm.masked.store.{name}.p0", ir.VoidType(), value, pointer, aligned, which)
        return context.get_dummy_value()

    return types.void(array, place, which, vector), generate


def _kind(array: Any) -> tuple[Any, str]:
    """What is read from an array, by its type, and what LLVM calls it."""
    return (_WORDS, "v16i32") if array.dtype == types.int32 else (FLOATS, "v16f32")


def _compared(sign: str, *, unordered: bool = False) -> Any:
    """A function that compares two vectors, number by number."""

    @in_llvm
    def compared(typing: Any, first: Any, second: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            compare = builder.fcmp_unordered if unordered else builder.fcmp_ordered
            return compare(sign, *arguments)

        return _CHOICE(first, second), generate

    return compared


is_larger, is_equal = _compared(">"), _compared("==")
is_larger_or_none = _compared(">", unordered=True)
"""Where the first is larger, or one of the two is not a number."""
is_no_number = _compared("uno", unordered=True)
"""Where one of the two is not a number."""


@in_llvm
def either(typing: Any, first: Any, second: Any) -> Any:
    """Where one of two things is true."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.or_(*arguments)

    return _CHOICE(first, second), generate


@in_llvm
def chosen(typing: Any, truths: Any, first: Any, second: Any) -> Any:
    """Numbers of the first where something is true, of the second elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return VECTOR(truths, first, second), generate
