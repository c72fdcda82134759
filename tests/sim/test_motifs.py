"""Motifs: their probabilities, their instances, and that the truth says where they went."""

from __future__ import annotations

import numpy as np
import pytest

from dlgenome.encoding import decode, encode, reverse_complement
from dlgenome_sim.motifs import IUPAC, MOTIFS, Motif, free_starts, instance, plant, probabilities


@pytest.mark.parametrize("motif", MOTIFS, ids=lambda motif: motif.name)
def test_probabilities_sum_to_one_and_favour_the_consensus(motif: Motif) -> None:
    matrix = probabilities(motif)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    for row, letter in zip(matrix, motif.consensus, strict=True):
        favoured = {base for base, share in zip("ACGT", row, strict=True) if share == row.max()}
        assert favoured == set(IUPAC[letter])


def test_instances_follow_the_probabilities() -> None:
    motif = Motif("any", "ASN", 1.0)
    generator = np.random.default_rng(3)
    drawn = np.array([instance(motif, generator) for _ in range(4000)])
    frequencies = np.array([(drawn == base).mean(axis=0) for base in range(4)]).T
    np.testing.assert_allclose(frequencies, probabilities(motif), atol=0.03)


def test_the_other_strand_holds_the_reverse_complement() -> None:
    motif = Motif("any", "AGATAAG", 1.0)
    forward = instance(motif, np.random.default_rng(1))
    reverse = instance(motif, np.random.default_rng(1), reverse=True)
    np.testing.assert_array_equal(reverse, reverse_complement(forward))


@pytest.mark.parametrize("seed", range(20))
def test_planted_motifs_lie_where_the_truth_says_and_do_not_touch(seed: int) -> None:
    generator = np.random.default_rng(seed)
    exact = [Motif("up", "AAAAAAA", 1.0), Motif("down", "ACACA", 1.0)]
    codes = np.full(60, 2, dtype=np.uint8)
    sites = plant(codes, exact, 10, 50, generator, "chrA")
    assert sites[0].start >= 10
    assert sites[-1].end <= 50
    assert sites[0].end + 4 <= sites[1].start
    for site, motif in zip(sites, exact, strict=True):
        found = codes[site.start : site.end]
        found = reverse_complement(found) if site.strand == "-" else found
        mismatches = np.count_nonzero(found != encode(motif.consensus))
        assert mismatches <= 2
    untouched = np.ones(60, dtype=bool)
    for site in sites:
        untouched[site.start : site.end] = False
    assert set(decode(codes[untouched])) == {"G"}


def test_stretches_that_fill_the_space_still_fit_and_longer_ones_are_refused() -> None:
    generator = np.random.default_rng(0)
    assert free_starts([5, 5], 0, 14, 4, generator) == [0, 9]
    with pytest.raises(ValueError, match="do not fit"):
        free_starts([5, 5], 0, 13, 4, generator)
