from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dlgenome.errors import UsageError
from dlgenome.references.dinucleotide import dinucleotide_shuffle
from dlgenome.references.registry import ReferenceSource, parse_references
from dlgenome.types import Codes


def parse(spec: str, n_references: int | None = None, seed: int = 0, window: int = 8) -> ReferenceSource:
    return parse_references(spec, n_references=n_references, seed=seed, window=window, n_input_rows=3)


@pytest.mark.parametrize(
    ("spec", "name", "n_references", "is_coded"),
    [
        ("dinucleotide-shuffle", "dinucleotide-shuffle", 20, True),
        ("shuffle", "shuffle", 20, True),
        ("zeros", "zeros", 1, False),
        ("uniform", "uniform", 1, False),
        ("frequency:.30,0.2,0.200,0.3", "frequency:0.3,0.2,0.2,0.3", 1, False),
    ],
)
def test_kind_says_what_it_is(spec: str, name: str, n_references: int, is_coded: bool) -> None:
    source = parse(spec)
    assert (source.name, source.n_references, source.is_coded) == (name, n_references, is_coded)
    assert source.path is None
    source.close()


def test_given_number_of_references_is_used_where_they_differ() -> None:
    assert parse("dinucleotide-shuffle", n_references=7).n_references == 7
    assert parse("zeros", n_references=7).n_references == 1


def test_zeros_and_uniform_have_these_values(encode: Callable[[str], Codes]) -> None:
    assert not parse("zeros").draw(encode("ACGT"), 0).any()
    assert parse("uniform").draw(encode("AN"), 0).tolist() == [[[0.25, 0]] * 4]


@pytest.mark.parametrize("spec", ["dinucleotide-shuffle", "shuffle"])
def test_references_depend_on_nothing_but_seed_sequence_and_index(spec: str, long_codes: Codes) -> None:
    sequences = np.stack([np.roll(long_codes, shift) for shift in range(6)])
    sequences[2, 100:150] = 4
    rows = np.arange(6)
    expected = parse(spec, n_references=20, seed=5).draw_batch(sequences, rows)
    order = np.array([4, 0, 5, 2, 1, 3])
    few = parse(spec, n_references=5, seed=5)
    assert np.array_equal(few.draw_batch(sequences[order], rows), expected[order][:, :5])
    assert np.array_equal(few.draw_batch(np.asfortranarray(sequences[1:3]), rows[:2]), expected[1:3, :5])
    assert np.array_equal(few.draw(sequences[3], 17), expected[3, :5])
    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(few.draw, sequences[order], rows))
    assert np.array_equal(drawn, expected[order][:, :5])


@pytest.mark.parametrize("spec", ["dinucleotide-shuffle", "shuffle"])
def test_references_drawn_later_are_those_of_a_larger_draw(spec: str, long_codes: Codes) -> None:
    sequences = np.stack([long_codes, np.roll(long_codes, 9)])
    rows = np.arange(2)
    many = parse(spec, n_references=12, seed=3).draw_batch(sequences, rows)
    few = parse(spec, n_references=4, seed=3)
    rounds = [few.draw_batch(sequences, rows, first) for first in (0, 4, 8)]
    assert np.array_equal(np.concatenate(rounds, axis=1), many)
    assert np.array_equal(few.draw_batch(sequences[1:], rows[:1], 7), many[1:, 7:11])


def test_the_default_kind_is_the_dinucleotide_shuffle(long_codes: Codes) -> None:
    source = parse("dinucleotide-shuffle", n_references=3, seed=2)
    assert np.array_equal(source.draw(long_codes, 0), dinucleotide_shuffle(long_codes, 3, 2))
    counted = parse("shuffle", n_references=3, seed=2).draw(long_codes, 0)
    assert not np.array_equal(counted, source.draw(long_codes, 0))


def test_file_is_opened_for_the_window_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "background.npz"
    np.savez(path, references=np.full((3, 2, 4, 8), 0.25))
    source = parse(f"file:{path}")
    assert (source.name, source.n_references, source.path) == ("file:background.npz", 2, path)
    with pytest.raises(UsageError, match=r"--n-references 5 was given, but .*background\.npz holds 2"):
        parse(f"file:{path}", n_references=5)


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [
        ("dinucleotide", "dinucleotide-shuffle"),
        ("dinuc", "dinucleotide-shuffle"),
        ("dinucleotide_shuffle", "dinucleotide-shuffle"),
        ("kmer-shuffle:3", "shuffle"),
        ("zero", "zeros"),
        ("frequencies:0.3,0.2,0.2,0.3", "frequency:A,C,G,T"),
    ],
)
def test_unknown_kind_is_refused_with_the_nearest_name(spec: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"{spec} is not a kind .* there are .*Did you mean {nearest}\\?$"):
        parse(spec)


@pytest.mark.parametrize("spec", ["", "xyz", ":"])
def test_kind_like_no_other_is_refused_with_the_list(spec: str) -> None:
    with pytest.raises(UsageError, match=r"dinucleotide-shuffle, shuffle, zeros, uniform, .*, file:PATH$"):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "usage"),
    [
        ("zeros:1", "zeros"),
        ("uniform:", "uniform"),
        ("file", "file:PATH"),
        ("frequency:", "frequency:A,C,G,T"),
    ],
)
def test_missing_or_needless_argument_is_refused(spec: str, usage: str) -> None:
    with pytest.raises(UsageError, match=f"{spec} is not understood: write {usage}$"):
        parse(spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_references": 0}, "at least one reference"),
        ({"seed": -1}, "from 0 to"),
        ({"seed": 2**64}, "from 0 to"),
        ({"window": 1 << 23}, "too long to shuffle"),
    ],
)
def test_impossible_number_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse("dinucleotide-shuffle", **options)
