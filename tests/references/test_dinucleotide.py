from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlgenome.errors import UsageError
from dlgenome.references import shuffled
from dlgenome.references.dinucleotide import dinucleotide_shuffle
from dlgenome.types import Codes

N_DRAWS = 12000
KNOWN_DIGEST = 13644829675257938138
KNOWN_DINUCLEOTIDE_SHUFFLES = "94c5ca493972f3314d82fa09acde51562d6ea9ff3ef6e7685fbf52b271da9c02"
KNOWN_SHUFFLES = "5104623cc019490577fac4f794a9874122415ba55e36e6624de6a8ec6fb3434a"


def labelled_eulerian_paths(codes: list[int]) -> Iterator[tuple[int, ...]]:
    """The bases along every Eulerian path, one for each order of distinguishable edges."""

    def extend(path: list[int], left: list[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
        if not left:
            yield tuple(path)
        for index, (source, target) in enumerate(left):
            if source == path[-1]:
                yield from extend([*path, target], left[:index] + left[index + 1 :])

    yield from extend([codes[0]], list(pairwise(codes)))


def sequences_with_the_same_dinucleotides(codes: list[int]) -> list[tuple[int, ...]]:
    """Every sequence with the first base and the dinucleotides of ``codes``, each once."""
    left = Counter(pairwise(codes))
    found: list[tuple[int, ...]] = []

    def extend(path: list[int]) -> None:
        if len(path) == len(codes):
            found.append(tuple(path))
        for target in range(4):
            if left[path[-1], target]:
                left[path[-1], target] -= 1
                extend([*path, target])
                left[path[-1], target] += 1

    extend([codes[0]])
    return found


def shuffle_that_keeps_last_edges(codes: list[int], random: np.random.Generator) -> tuple[int, ...]:
    """The common shortcut, which is not uniform: every base keeps its last successor."""
    successors: dict[int, list[int]] = {}
    for source, target in pairwise(codes):
        successors.setdefault(source, []).append(target)
    for targets in successors.values():
        targets[:-1] = [targets[index] for index in random.permutation(len(targets) - 1)]
    path = [codes[0]]
    while successors.get(path[-1]):
        path.append(successors[path[-1]].pop(0))
    return tuple(path)


@pytest.mark.parametrize("letters", ["AACAACA", "ACATAGAC", "ACGTAACA"])
def test_labelled_paths_give_every_distinct_sequence_equally_often(
    letters: str, encode: Callable[[str], Codes]
) -> None:
    codes = encode(letters).tolist()
    paths = Counter(labelled_eulerian_paths(codes))
    assert sorted(paths) == sorted(sequences_with_the_same_dinucleotides(codes))
    assert len(set(paths.values())) == 1


@pytest.mark.parametrize(
    "letters",
    ["AACAACAC", "AACCAGTTCAG", "ACAGATACAGTA", "AACAAGATTGA", "ACGGTCATGC", "GATTACAGATC", "CCGTCGTTCAGC"],
)
def test_every_sequence_with_the_same_dinucleotides_is_equally_likely(
    letters: str,
    encode: Callable[[str], Codes],
    standard_deviations_from_uniform: Callable[..., float],
) -> None:
    codes = encode(letters)
    outcomes = sequences_with_the_same_dinucleotides(codes.tolist())
    draws = [tuple(draw) for draw in dinucleotide_shuffle(codes, N_DRAWS, seed=1).tolist()]
    assert len(outcomes) > 1
    assert standard_deviations_from_uniform(draws, outcomes) < 5


def test_uniformity_test_notices_the_shortcut_that_keeps_last_edges(
    encode: Callable[[str], Codes], standard_deviations_from_uniform: Callable[..., float]
) -> None:
    codes = encode("GATTACAGATC").tolist()
    random = np.random.default_rng(0)
    draws = [shuffle_that_keeps_last_edges(codes, random) for _ in range(2000)]
    assert standard_deviations_from_uniform(draws, sequences_with_the_same_dinucleotides(codes)) > 50


@pytest.mark.parametrize("letters", ["AACCG", "ACGTA", "AAACT"])
def test_mononucleotide_shuffle_is_uniform_over_permutations(
    letters: str,
    encode: Callable[[str], Codes],
    standard_deviations_from_uniform: Callable[..., float],
) -> None:
    codes = encode(letters)
    outcomes = sorted(set(permutations(codes.tolist())))
    batch = shuffled.shuffle_sequences(codes[np.newaxis], N_DRAWS, 3, dinucleotides=False)
    assert standard_deviations_from_uniform([tuple(draw) for draw in batch[0].tolist()], outcomes) < 5


def stretches(codes: Codes) -> Iterator[Codes]:
    """The stretches between N."""
    bounds = [-1, *np.flatnonzero(codes == 4), len(codes)]
    yield from (codes[start + 1 : stop] for start, stop in pairwise(bounds) if stop > start + 1)


SEQUENCES = st.lists(st.sampled_from([0, 1, 2, 3, 0, 1, 2, 3, 4]), max_size=80).map(
    lambda bases: np.array(bases, dtype=np.uint8)
)


@settings(deadline=None)
@given(codes=SEQUENCES, seed=st.integers(0, 2**64 - 1))
def test_reference_keeps_dinucleotide_counts_end_bases_and_n(codes: Codes, seed: int) -> None:
    for reference in dinucleotide_shuffle(codes, 3, seed):
        assert np.array_equal(reference == 4, codes == 4)
        for original, shuffle in zip(stretches(codes), stretches(reference), strict=True):
            assert (shuffle[0], shuffle[-1]) == (original[0], original[-1])
            assert Counter(pairwise(shuffle.tolist())) == Counter(pairwise(original.tolist()))


@settings(deadline=None)
@given(codes=SEQUENCES, seed=st.integers(0, 2**64 - 1))
def test_mononucleotide_shuffle_keeps_base_counts_between_n(codes: Codes, seed: int) -> None:
    batch = shuffled.shuffle_sequences(codes[np.newaxis], 3, seed, dinucleotides=False)
    for reference in batch[0]:
        assert np.array_equal(reference == 4, codes == 4)
        for original, shuffle in zip(stretches(codes), stretches(reference), strict=True):
            assert sorted(shuffle) == sorted(original)


@pytest.mark.parametrize(
    "letters", ["", "A", "AC", "N", "NNNN", "AAAAAAAA", "ACACAC", "ACACACA", "AACCCC", "NANCN", "AAAAC"]
)
def test_sequence_that_has_one_arrangement_is_its_own_reference(
    letters: str, encode: Callable[[str], Codes]
) -> None:
    codes = encode(letters)
    assert np.array_equal(dinucleotide_shuffle(codes, 4, seed=0), np.tile(codes, (4, 1)))


def test_no_sequences_give_no_references() -> None:
    empty = np.empty((0, 10), dtype=np.uint8)
    assert shuffled.shuffle_sequences(empty, 5, 0, dinucleotides=True).shape == (0, 5, 10)


def test_long_sequence_is_well_shuffled(long_codes: Codes) -> None:
    references = dinucleotide_shuffle(long_codes, 20, seed=0)
    for reference in references:
        assert Counter(pairwise(reference.tolist())) == Counter(pairwise(long_codes.tolist()))
        assert 0.2 < (reference == long_codes).mean() < 0.3
    assert len(np.unique(references, axis=0)) == 20


def test_references_are_those_that_they_were_at_the_first_release(long_codes: Codes) -> None:
    codes = long_codes.copy()
    codes[500:510] = 4
    pairs = dinucleotide_shuffle(codes, 5, seed=7)
    singles = shuffled.shuffle_sequences(codes[np.newaxis], 5, 7, dinucleotides=False)
    assert shuffled.sequence_digest(codes) == KNOWN_DIGEST
    assert hashlib.sha256(pairs.tobytes()).hexdigest() == KNOWN_DINUCLEOTIDE_SHUFFLES
    assert hashlib.sha256(singles.tobytes()).hexdigest() == KNOWN_SHUFFLES


def test_seed_changes_references(long_codes: Codes) -> None:
    assert not np.array_equal(dinucleotide_shuffle(long_codes, 1, 0), dinucleotide_shuffle(long_codes, 1, 1))


def test_sequence_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch, long_codes: Codes) -> None:
    monkeypatch.setattr(shuffled, "LONGEST", 2000)
    with pytest.raises(UsageError, match="2114 bases is too long to shuffle: the limit is 2000"):
        dinucleotide_shuffle(long_codes, 1, 0)
