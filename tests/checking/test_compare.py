"""Two files compared: what differs is named, equal files are equal, and regions may be in any order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dlgenome.checking import Difference, compare
from dlgenome.checking.comparing import pearson
from dlgenome.checking.matching import KEY, match_rows
from dlgenome.errors import InputError

MakeRun = Callable[..., Any]
SCORES = "projected_shap/seq"
ROW_GROUPS = ("raw", "shap", "projected_shap", "regions", "qc")


def reorder(path: Path, rows: list[int]) -> None:
    """Make a file of these rows of it, in this order."""
    with h5py.File(path, "r+") as file:
        for group in ROW_GROUPS:
            for name in list(file[group]):
                values = file[f"{group}/{name}"][:][rows]
                del file[f"{group}/{name}"]
                file[f"{group}/{name}"] = values


def test_equal_files_are_equal_whatever_their_provenance(make_run: MakeRun) -> None:
    found = compare(make_run("one").scores, make_run("two").scores)
    assert found.equal
    assert found.within(0.0)
    assert (found.matched, found.largest, found.identity, found.datasets) == (12, 0.0, {}, {})
    assert found.correlation is not None
    assert found.correlation.minimum == pytest.approx(1)
    assert found.worst == ()


def test_a_single_bit_is_a_difference(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    with h5py.File(two.scores, "r+") as file:
        values = file[SCORES][7]
        base, position = np.argwhere(values)[3]
        values[base, position] = np.nextafter(values[base, position], np.float32(9))
        file[SCORES][7] = values
    found = compare(one.scores, two.scores)
    assert not found.equal
    assert found.datasets == {SCORES: 1}
    assert [region.first_row for region in found.worst] == [7]
    assert 0 < found.largest < 1e-6
    assert found.within(1e-6)
    assert not found.within(0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("raw/seq", 1),
        ("shap/seq", 0.25),
        ("qc/prediction", 4.0),
        ("qc/delta_error", np.nan),
        ("qc/n_references", 3),
        ("regions/strand", b"x"),
        ("regions/input_row", 99),
    ],
)
def test_every_dataset_counts(make_run: MakeRun, name: str, value: Any) -> None:
    one, two = make_run("one"), make_run("two")
    with h5py.File(two.scores, "r+") as file:
        file[name][3] = value
    found = compare(one.scores, two.scores)
    assert found.datasets == {name: 1}
    assert not found.equal


def test_not_a_number_equals_itself(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    for run in (one, two):
        with h5py.File(run.scores, "r+") as file:
            file["qc/delta_error"][3] = np.nan
            file[SCORES][3, 0, 0] = np.nan
    assert compare(one.scores, two.scores).equal
    with h5py.File(two.scores, "r+") as file:
        file[SCORES][3, 0, 0] = 0
    found = compare(one.scores, two.scores)
    assert found.largest == np.inf
    assert not found.within(1e9)


def test_identity_is_compared_and_what_is_missing_is_none(make_run: MakeRun) -> None:
    one, two = make_run("one", rounds="1-3"), make_run("two", checkpoint_sha256="ff")
    found = compare(one.scores, two.scores)
    assert found.identity.keys() == {"rounds", "checkpoint_sha256"}
    assert found.identity["rounds"] == ("1-3", None)
    assert found.identity["checkpoint_sha256"][1] == "ff"
    assert not found.equal
    assert found.within(0.0)


def test_numbers_of_two_runs_are_those_worked_out_by_hand(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two", seed=1)
    found = compare(one.scores, two.scores, worst=3)
    tracks = [[row.scores["counts"].projected for row in run.rows] for run in (one, two)]
    largest_score = max(float(np.abs(values).max()) for run in tracks for values in run)
    apart = [float(np.abs(ours.astype(float) - theirs).max()) for ours, theirs in zip(*tracks, strict=True)]
    correlations = [
        np.corrcoef(ours.sum(axis=0), theirs.sum(axis=0))[0, 1] for ours, theirs in zip(*tracks, strict=True)
    ]
    assert found.largest_score == pytest.approx(largest_score)
    assert found.largest == pytest.approx(max(apart) / largest_score)
    assert found.correlation is not None
    assert found.correlation.minimum == pytest.approx(min(correlations), abs=1e-6)
    assert found.correlation.median == pytest.approx(np.median(correlations), abs=1e-6)
    assert found.correlation.mean == pytest.approx(np.mean(correlations), abs=1e-6)
    order = sorted(range(12), key=lambda row: -apart[row])[:3]
    assert [region.first_row for region in found.worst] == order
    for region, row in zip(found.worst, order, strict=True):
        window = one.rows[row].window
        assert (region.chrom, region.start, region.end) == (window.chrom, window.start, window.end)
        assert region.name == f"peak_{row}"
        assert region.largest == pytest.approx(apart[row] / largest_score)
        assert region.correlation == pytest.approx(correlations[row], abs=1e-6)


def test_another_order_is_seen_and_regions_still_find_each_other(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    reorder(two.scores, list(range(12))[::-1])
    found = compare(one.scores, two.scores)
    assert not found.same_order
    assert not found.equal
    assert (found.matched, found.only_first, found.only_second) == (12, 0, 0)
    assert found.datasets == {}
    assert found.largest == 0
    assert found.within(0.0)


def test_regions_in_one_file_only_are_counted(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    reorder(one.scores, [0, 1, 3, 4, 5])
    reorder(two.scores, [5, 1, 2, 0])
    found = compare(one.scores, two.scores)
    assert (found.matched, found.only_first, found.only_second) == (3, 2, 1)
    assert found.datasets == {}
    assert not found.within(1.0)


def test_files_without_a_common_region_have_nothing_to_compare(make_run: MakeRun) -> None:
    found = compare(make_run("one", n_rows=3).scores, make_run("two", centers=[300, 301]).scores)
    assert (found.matched, found.only_first, found.only_second) == (0, 3, 2)
    assert found.correlation is None
    assert np.isnan(found.largest)
    assert not found.within(1.0)


def test_windows_of_other_lengths_are_named(make_run: MakeRun) -> None:
    found = compare(make_run("one").scores, make_run("two", length=42).scores)
    assert found.layout["bases in a window"] == (40, 42)
    assert found.identity["window"] == (40, 42)
    assert found.matched == 0


def test_half_floats_are_compared_with_floats(make_run: MakeRun) -> None:
    found = compare(make_run("one").scores, make_run("two", score_dtype="float16").scores)
    assert found.layout == {"kind of numbers": ("float32", "float16")}
    assert 0 < found.largest < 1e-3


def test_arrays_of_one_file_only_are_named(make_run: MakeRun) -> None:
    one, two = make_run("one", extras=("fold_sd",)), make_run("two", hypothetical=False)
    found = compare(one.scores, two.scores)
    assert found.layout == {"datasets of its own": (("fold_sd/seq", "shap/seq"), ())}
    assert not found.equal


def test_further_arrays_are_compared(make_run: MakeRun) -> None:
    one, two = (make_run(name, extras=("fold_sd",)) for name in ("one", "two"))
    assert compare(one.scores, two.scores).equal
    with h5py.File(two.scores, "r+") as file:
        file["fold_sd/seq"][2, 0, 0] += 1
    assert compare(one.scores, two.scores).datasets == {"fold_sd/seq": 1}


def test_another_genome_is_a_difference(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    with h5py.File(two.scores, "r+") as file:
        file["genome/length"][1] = 71
    assert compare(one.scores, two.scores).layout == {"sequences of the genome": (3, 3)}


def test_constant_scores_have_no_correlation(make_run: MakeRun) -> None:
    one, two = make_run("one"), make_run("two")
    with h5py.File(two.scores, "r+") as file:
        file[SCORES][[1, 4]] = 0
    found = compare(one.scores, two.scores)
    assert found.correlation is not None
    assert found.correlation.undefined == 2


def test_files_that_cannot_be_read_are_input_errors(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for other in (tmp_path / "missing.h5", run.paths.regions_bed):
        with pytest.raises(InputError):
            compare(run.scores, other)


def test_everything_found_is_ready_for_json(make_run: MakeRun) -> None:
    found = compare(make_run("one").scores, make_run("two", seed=1).scores)
    assert isinstance(found, Difference)
    facts = found.facts()
    assert facts["equal"] is False
    assert facts["identity"] == {"seed": (0, 1)}
    assert facts["worst"][0]["chrom"] in ("chr1", "chr2")


ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "bb"]), st.integers(-2, 2), st.sampled_from(["x", "yy"])), max_size=9
)


class Columns:
    """As much of a scores file as matching looks at."""

    def __init__(self, rows: list[tuple[str, int, str]]) -> None:
        self.n_regions = len(rows)
        chroms, starts, names = zip(*rows, strict=True) if rows else ((), (), ())
        self.columns = {
            "regions/chrom": np.array([chrom.encode() for chrom in chroms], dtype="S2"),
            "regions/start": np.array(starts, dtype=np.int64),
            "regions/end": np.array(starts, dtype=np.int64) + 5,
            "regions/name": np.array([name.encode() for name in names], dtype=f"S{2 + len(rows) % 2}"),
        }

    def stored(self, name: str) -> Any:
        return self.columns[name]


@given(ROWS, ROWS)
def test_rows_are_paired_as_a_plain_search_pairs_them(
    ours: list[tuple[str, int, str]], theirs: list[tuple[str, int, str]]
) -> None:
    assert KEY == ("chrom", "start", "end", "name")
    free = list(range(len(theirs)))
    expected = []
    for row, key in enumerate(ours):
        partner = next((other for other in free if theirs[other] == key), None)
        if partner is not None:
            free.remove(partner)
            expected.append((row, partner))
    one, other = Columns(ours), Columns(theirs)
    found = match_rows(one, other)  # type: ignore[arg-type]
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    paired = {row for row, _ in expected}
    assert found.only_first.tolist() == [row for row in range(len(ours)) if row not in paired]
    assert found.only_second.tolist() == free
    assert found.same_order == (ours == theirs)


@given(arrays.arrays(np.float64, (2, 3, 7), elements=st.floats(-1e3, 1e3, width=32)))
def test_pearson_is_numpys(values: Any) -> None:
    for found, ours, theirs in zip(pearson(*values), *values, strict=True):
        if np.ptp(ours) < 1e-6 * np.abs(ours).max() or np.ptp(theirs) < 1e-6 * np.abs(theirs).max():
            continue
        if np.ptp(ours) > 1e-3 and np.ptp(theirs) > 1e-3:
            assert found == pytest.approx(np.corrcoef(ours, theirs)[0, 1], abs=1e-6)
