"""Letters, codes and one-hot columns against letter-by-letter twins."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dlgenome.encoding import decode, encode, one_hot, reverse_complement

LETTERS = st.text(alphabet="ACGTNacgtnRYKMSWX-*é", max_size=40)


def letter_by_letter(text: str) -> list[int]:
    return ["ACGT".index(letter.upper()) if letter in "ACGTacgt" else 4 for letter in text]


@given(LETTERS)
def test_every_letter_gets_its_code_and_every_other_letter_n(text: str) -> None:
    codes = encode(text)
    assert codes.dtype == np.uint8
    assert codes.tolist() == letter_by_letter(text)
    assert decode(codes) == "".join("ACGTN"[code] for code in letter_by_letter(text))


def test_bytes_and_text_give_the_same_codes() -> None:
    assert encode(b"acgtN").tolist() == encode("ACGTn").tolist() == [0, 1, 2, 3, 4]


@given(LETTERS)
def test_one_hot_has_one_row_per_base_and_no_mark_for_n(text: str) -> None:
    hot = one_hot(encode(text))
    assert hot.shape == (4, len(text))
    assert hot.dtype == np.int8
    for position, code in enumerate(letter_by_letter(text)):
        assert hot[:, position].tolist() == [int(code == base) for base in range(4)]


def test_one_hot_keeps_leading_axes() -> None:
    codes = encode("ACGTNACGTN").reshape(2, 5)
    assert one_hot(codes).shape == (2, 4, 5)
    assert (one_hot(codes)[1] == one_hot(codes[1])).all()


def test_reverse_complement_reads_the_other_strand() -> None:
    assert decode(reverse_complement(encode("AACGTN"))) == "NACGTT"


@given(LETTERS)
def test_reverse_complement_twice_is_the_same_sequence(text: str) -> None:
    codes = encode(text)
    assert (reverse_complement(reverse_complement(codes)) == codes).all()
    assert (one_hot(reverse_complement(codes)) == one_hot(codes)[::-1, ::-1]).all()
