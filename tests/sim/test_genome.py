"""The simulated genome: what the seed decides, and that peaks and truth agree with the sequence."""

from __future__ import annotations

import numpy as np

from dlgenome_sim.genome import HALF_PEAK, random_codes, simulate_examples, simulate_genome


def test_the_seed_decides_everything() -> None:
    first, again, other = (simulate_genome({"c": 20_000}, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.contigs["c"], again.contigs["c"])
    assert first.peaks == again.peaks
    assert first.planted == again.planted
    assert not np.array_equal(first.contigs["c"], other.contigs["c"])


def test_bases_have_the_composition_asked_for() -> None:
    codes = random_codes(40_000, np.random.default_rng(0), (0.1, 0.2, 0.3, 0.4))
    np.testing.assert_allclose(np.bincount(codes) / len(codes), (0.1, 0.2, 0.3, 0.4), atol=0.01)


def test_every_motif_lies_around_the_summit_of_a_peak() -> None:
    genome = simulate_genome({"a": 30_000, "b": 20_000})
    assert {peak.chrom for peak in genome.peaks} == {"a", "b"}
    for site in genome.planted:
        near = [
            peak
            for peak in genome.peaks
            if peak.chrom == site.chrom
            and peak.summit - HALF_PEAK <= site.start
            and site.end <= peak.summit + HALF_PEAK
        ]
        assert len(near) == 1
    for peak in genome.peaks:
        assert 0 <= peak.start <= peak.summit < peak.end <= len(genome.contigs[peak.chrom])


def test_contigs_begin_with_unknown_bases_as_chromosomes_do() -> None:
    codes = simulate_genome({"c": 10_000}).contigs["c"]
    assert set(codes[:500]) == {4}
    assert codes[500:].max() == 3


def test_a_quarter_of_the_examples_hold_no_motif() -> None:
    codes, activities = simulate_examples(400, 100)
    assert codes.shape == (400, 100)
    assert not activities[::4].any()
    assert np.count_nonzero(activities) > 200
