from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dlgenome.errors import UsageError
from dlgenome.references.frequency import FrequencyReferences, parse_frequencies
from dlgenome.types import Codes


def test_every_known_base_has_the_frequencies_and_n_has_none(encode: Callable[[str], Codes]) -> None:
    frequencies = (0.3, 0.25, 0.15, 0.3)
    batch = np.stack([encode("ACGTN"), encode("NNACG")])
    references = FrequencyReferences("test", frequencies).draw_batch(batch, np.arange(2))
    assert references.dtype == np.float32
    assert references.shape == (2, 1, 4, 5)
    for sequence, position in np.ndindex(batch.shape):
        expected = (0, 0, 0, 0) if batch[sequence, position] == 4 else frequencies
        assert references[sequence, 0, :, position] == pytest.approx(expected)


def test_one_sequence_gives_what_a_batch_of_one_gives(encode: Callable[[str], Codes]) -> None:
    source = FrequencyReferences("test", (0.1, 0.2, 0.3, 0.4))
    codes = encode("ACGNT")
    assert np.array_equal(source.draw(codes, 9), source.draw_batch(codes[np.newaxis], np.array([9]))[0])


def test_frequencies_are_scaled_to_sum_to_one() -> None:
    assert parse_frequencies("0.2955,0.2045,0.2045,0.2950") == pytest.approx(
        (0.2955 / 0.9995, 0.2045 / 0.9995, 0.2045 / 0.9995, 0.2950 / 0.9995)
    )


@pytest.mark.parametrize(
    "text", ["genome", "0.5,0.5", "0.3,0.2,0.2,x", "1,0,0,nan", "-0.5,0.5,0.5,0.5", "1,,,0"]
)
def test_text_that_is_not_four_frequencies_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="give the frequencies of A, C, G and T"):
        parse_frequencies(text)


def test_frequencies_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(UsageError, match="sum to 100, not to 1"):
        parse_frequencies("30,20,20,30")
