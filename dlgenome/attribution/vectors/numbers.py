"""Sixteen float32 numbers at once, for compiled functions: a type of numba's, and what can be done with it.

Loops that numba would turn into such instructions by itself must be simple; these need not. Arrays are flat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from dlgenome.compiled import compiled

in_llvm: Callable[[Callable[..., Any]], Any] = intrinsic
"""Makes a function for compiled ones of one that writes it in LLVM's language."""
Numbers = NDArray[np.float32]
LANES = 16
"""Numbers in a vector."""
_INT = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()
_WORDS = ir.VectorType(_INT, LANES)
FLOATS = ir.VectorType(ir.FloatType(), LANES)
_LINE = 64
"""Bytes of a line of the cache."""


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BFLOATS = ir.VectorType(_BFloat(), 2 * LANES)


_CONTENTS: dict[str, Any] = {}


class _RegisterType(types.Type):
    """What a register holds, by a name: numba writes types to its cache, and LLVM's are not for that."""


@register_model(_RegisterType)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _CONTENTS[kind.name])  # type: ignore[no-untyped-call]


def register_of(name: str, content: Any) -> Any:
    """The type of numba's for what LLVM has a type for."""
    _CONTENTS[name] = content
    return _RegisterType(name)


VECTOR = register_of("vector", FLOATS)


def call(builder: Any, name: str, made: Any, *arguments: Any, may: tuple[str, ...] = ()) -> Any:
    """Call a function that LLVM or the processor has, which may take such liberties, for intrinsics."""
    kind = ir.FunctionType(made, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
    return builder.call(function, arguments, fastmath=may)


def place_in(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    """Pointer to a number of a flat array, for intrinsics."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])


@in_llvm
def load(typing: Any, array: Any, place: Any) -> Any:
    """The sixteen numbers of an array from a place on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return vector_at(builder, place_in(context, builder, signature.args[0], *arguments))

    return VECTOR(array, place), generate


@in_llvm
def store(typing: Any, array: Any, place: Any, vector: Any) -> Any:
    """Put a vector into an array from a place on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = place_in(context, builder, signature.args[0], *arguments[:2])
        put_vector(builder, pointer, arguments[2])
        return context.get_dummy_value()

    return types.void(array, place, vector), generate


@in_llvm
def in_eight_digits(typing: Any, vector: Any) -> Any:
    """The nearest numbers of eight binary digits, as bfloat16 has; of two equally near the larger in size.

    One that is no number may become zero, but not what is left of it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _WORDS)
        up = builder.add(bits, ir.Constant(_WORDS, [1 << 15] * LANES))
        return builder.bitcast(builder.and_(up, ir.Constant(_WORDS, [0xFFFF0000] * LANES)), FLOATS)

    return VECTOR(vector), generate


@in_llvm
def put_short(typing: Any, array: Any, place: Any, first: Any, second: Any) -> Any:
    """Put two vectors into an array of bits, as the nearest bfloat16 numbers (AVX-512 BF16)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = place_in(context, builder, signature.args[0], *arguments[:2])
        _, _, low, high = arguments
        made = call(builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", BFLOATS, high, low)
        put_vector(builder, pointer, builder.bitcast(made, ir.VectorType(ir.IntType(16), 2 * LANES)))
        return context.get_dummy_value()

    return types.void(array, place, first, second), generate


@in_llvm
def put_by(typing: Any, array: Any, place: Any, first: Any, second: Any) -> Any:
    """Put two vectors into an array past the caches, whole lines of them at once.

    For what is not read soon: the memory is not read before it is written. The place must be a multiple of
    two vectors from the beginning of an array that is aligned to 64 bytes. Another thread sees it only after
    something that orders memory, such as the lock by which it learns of it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = place_in(context, builder, signature.args[0], *arguments[:2])
        for number, vector in enumerate(arguments[2:]):
            part = builder.gep(pointer, [ir.Constant(arguments[1].type, number * LANES)])
            put_vector(builder, part, vector, past=True)
        return context.get_dummy_value()

    return types.void(array, place, first, second), generate


@in_llvm
def fetch(typing: Any, array: Any, place: Any) -> Any:
    """Have the line of the cache with a number of an array brought near; beyond its end that does nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        prefetch(builder, place_in(context, builder, signature.args[0], *arguments))
        return context.get_dummy_value()

    return types.void(array, place), generate


@in_llvm
def all_of(typing: Any, number: Any) -> Any:
    """A vector of one number sixteen times."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return same_everywhere(builder, arguments[0])

    return VECTOR(number), generate


def _of_two(make: Callable[[Any, Any, Any], Any]) -> Any:
    """A function of two vectors, from one of LLVM's builder and their values."""

    @in_llvm
    def combined(typing: Any, first: Any, second: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return make(builder, *arguments)

        return VECTOR(first, second), generate

    return combined


plus = _of_two(lambda builder, a, b: builder.fadd(a, b))
minus = _of_two(lambda builder, a, b: builder.fsub(a, b))
times = _of_two(lambda builder, a, b: builder.fmul(a, b))
over = _of_two(lambda builder, a, b: builder.fdiv(a, b))
at_least = _of_two(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", b, a), b, a))
"""The larger of two numbers; the first where one of them is not a number."""
at_most = _of_two(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", b, a), b, a))
"""The smaller of two numbers; the first where one of them is not a number."""


@in_llvm
def size_of(typing: Any, vector: Any) -> Any:
    """The numbers without their signs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, f"llvm.fabs.v{LANES}f32", FLOATS, *arguments)

    return VECTOR(vector), generate


@in_llvm
def root(typing: Any, vector: Any) -> Any:
    """The square roots."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, f"llvm.sqrt.v{LANES}f32", FLOATS, *arguments)

    return VECTOR(vector), generate


@in_llvm
def about_one_over(typing: Any, vector: Any) -> Any:
    """Reciprocals to 14 binary digits (AVX-512)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing, everywhere = ir.Constant(FLOATS, ir.Undefined), ir.Constant(ir.IntType(LANES), -1)
        return call(builder, "llvm.x86.avx512.rcp14.ps.512", FLOATS, arguments[0], nothing, everywhere)

    return VECTOR(vector), generate


@in_llvm
def times_plus(typing: Any, first: Any, second: Any, added: Any) -> Any:
    """The product of two, and a third added to it, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, f"llvm.fma.v{LANES}f32", FLOATS, *arguments)

    return VECTOR(first, second, added), generate


@in_llvm
def negative(typing: Any, vector: Any) -> Any:
    """The numbers with the other sign."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fneg(arguments[0])

    return VECTOR(vector), generate


@compiled
def zeros(count: int) -> Numbers:
    """So many, from the beginning of a line of the cache on: what crosses lines loads at half the speed."""
    made = np.zeros(count + _LINE // 4, np.float32)
    beyond = np.int64(made.ctypes.data % np.uint64(_LINE))
    skipped = (_LINE - beyond) % _LINE // 4
    return made[skipped : skipped + count]


def prefetch(builder: Any, pointer: Any) -> None:
    """Have the line of the cache of a place brought near, for intrinsics."""
    to_read, nearest, data = (ir.Constant(_INT, number) for number in (0, 3, 1))
    pointer = builder.bitcast(pointer, _BYTES)
    call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, to_read, nearest, data)


def same_everywhere(builder: Any, number: Any) -> Any:
    """A vector of one number, for intrinsics."""
    nothing = ir.Constant(FLOATS, ir.Undefined)
    once = builder.insert_element(nothing, number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(once, nothing, ir.Constant(_WORDS, [0] * LANES))


def number_everywhere(builder: Any, pointer: Any) -> Any:
    """A vector of the number, or the pair of numbers, at a place, for intrinsics."""
    return same_everywhere(builder, builder.load(builder.bitcast(pointer, ir.FloatType().as_pointer())))


def vector_at(builder: Any, pointer: Any) -> Any:
    """The numbers from a place on, for intrinsics."""
    number = builder.load(builder.bitcast(pointer, FLOATS.as_pointer()))
    number.align = 4
    return number


def put_vector(builder: Any, pointer: Any, number: Any, *, past: bool = False) -> None:
    """Put them there, perhaps past the caches, for intrinsics."""
    stored = builder.store(number, builder.bitcast(pointer, number.type.as_pointer()))
    stored.align = 64 if past else 2
    if past:
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT, 1)]))
