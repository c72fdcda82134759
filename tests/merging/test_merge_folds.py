"""Folds joined afterwards are the run that names all the folds; folds that were not run alike are refused."""

from __future__ import annotations

import json
import statistics
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.errors import InputError, UsageError
from dlgenome.merging import MergeConfig, merge, merged_paths
from dlgenome.scores import ScoresFile
from dlgenome.types import Contig, ScoredWindow

Folds = Any


def config(tmp_path: Path, *scores: Path, **options: Any) -> MergeConfig:
    return MergeConfig(scores=scores, output=tmp_path / "joined", **{"mean": True, "threads": 1, **options})


def contents(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype.str, item.chunks, item[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(keep)
    with ScoresFile(path) as scores:
        return {**found, "identity": scores.identity}


@pytest.mark.parametrize("fold_sd", [False, True])
@pytest.mark.parametrize("hypothetical", [False, True])
def test_joined_folds_are_the_single_run_to_the_bit(
    folds: Folds, tmp_path: Path, fold_sd: bool, hypothetical: bool
) -> None:
    scores = [folds.fold(fold, hypothetical=hypothetical) for fold in range(3)]
    single = folds.single_run(3, fold_sd=fold_sd, hypothetical=hypothetical)
    summary = merge(config(tmp_path, *scores, fold_sd=fold_sd))
    assert [path.name.replace("joined", "single") for path in summary.outputs] == [
        path.name for path in single.all()
    ]
    assert all(path.is_file() for path in summary.outputs)
    assert not (tmp_path / "joined.partial").exists()
    for ours, theirs in zip(summary.outputs, single.all(), strict=True):
        if theirs.suffix == ".h5":
            assert contents(ours) == contents(theirs)
        elif theirs != single.run_json:
            assert ours.read_bytes() == theirs.read_bytes(), theirs.name
    assert (summary.parts, summary.scored, summary.skipped) == (3, 21, 1)


def test_numbers_are_the_means_that_one_works_out_by_hand(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(3)]
    merge(config(tmp_path, *scores, fold_sd=True))
    stored = []
    for path in scores:
        with ScoresFile(path) as file:
            stored.append((file.hypothetical(4), file.projected(4), {k: v[4] for k, v in file.qc.items()}))
    with ScoresFile(tmp_path / "joined.counts_scores.h5") as joined:
        hypothetical, projected = joined.hypothetical(4), joined.projected(4)
        deviation, qc = joined.extra("fold_sd", 4), {k: v[4] for k, v in joined.qc.items()}
        scale = np.median(joined.qc["mean_abs_delta"])
    for base, position in np.ndindex(4, 60):
        values = [float(fold[1][base, position]) for fold in stored]
        assert projected[base, position] == pytest.approx(statistics.mean(values), rel=1e-5, abs=1e-7)
        assert deviation[base, position] == pytest.approx(statistics.stdev(values), rel=1e-5, abs=1e-7)
        values = [float(fold[0][base, position]) for fold in stored]
        assert hypothetical[base, position] == pytest.approx(statistics.mean(values), rel=1e-5, abs=1e-6)
    for name in ("prediction", "reference_prediction", "sum", "mean_abs_delta"):
        assert qc[name] == pytest.approx(statistics.mean(float(fold[2][name]) for fold in stored), rel=1e-12)
    missed = abs(qc["sum"] - (qc["prediction"] - qc["reference_prediction"]))
    assert qc["delta_error"] == pytest.approx(missed / max(qc["mean_abs_delta"], 1e-6 * scale), rel=1e-12)


def test_several_targets_are_joined_at_once(folds: Folds, tmp_path: Path) -> None:
    targets = ("counts", "index-0")
    for fold in range(2):
        folds.fold(fold, targets=targets)
    single = folds.single_run(2, targets=targets, formats=("h5", "bigwig", "npz"))
    scores = [tmp_path / f"fold{fold}.{target}_scores.h5" for target in targets for fold in range(2)]
    summary = merge(config(tmp_path, *scores, formats=("h5", "bigwig", "npz")))
    for ours, theirs in zip(summary.outputs, single.all(), strict=True):
        if theirs.suffix == ".h5":
            assert contents(ours) == contents(theirs)
        elif theirs != single.run_json:
            assert ours.read_bytes() == theirs.read_bytes(), theirs.name
    with pytest.raises(InputError, match="other folds, or in another order"):
        merge(config(tmp_path, *scores[:2], *scores[:1:-1], overwrite=True))


def test_standard_errors_over_references_are_averaged_beside_a_new_deviation(
    folds: Folds, tmp_path: Path
) -> None:
    def with_error(row: ScoredWindow) -> ScoredWindow:
        scores = row.scores["counts"]
        return replace(
            row, scores={"counts": replace(scores, extras={"reference_se": np.abs(scores.projected)})}
        )

    scores = [folds.fold(fold, change=with_error, extras=("reference_se",)) for fold in range(2)]
    merge(config(tmp_path, *scores, fold_sd=True))
    with ScoresFile(scores[0]) as one, ScoresFile(scores[1]) as other:
        expected = (np.abs(one.projected(5)) + np.abs(other.projected(5))) / np.float32(2)
    with ScoresFile(tmp_path / "joined.counts_scores.h5") as joined:
        assert joined.extras == ("fold_sd", "reference_se")
        assert np.array_equal(joined.extra("reference_se", 5), expected)
    with pytest.raises(InputError, match="differ in the list of further arrays"):
        merge(config(tmp_path, scores[0], folds.fold(2), overwrite=True))


def test_order_of_the_folds_is_the_order_given(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    merge(config(tmp_path, *scores[::-1]))
    with ScoresFile(tmp_path / "joined.counts_scores.h5") as joined:
        assert joined.identity["checkpoint_sha256"] == "digest1,digest0"
        assert joined.attributes["checkpoint_path"] == "fold1.pt, fold0.pt"
        assert joined.attributes["target"] == "COUNTS"


def test_half_precision_stays_half_precision(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold, score_dtype="float16") for fold in range(2)]
    merge(config(tmp_path, *scores))
    with ScoresFile(tmp_path / "joined.counts_scores.h5") as joined:
        assert joined.score_dtype == "float16"
        with ScoresFile(scores[0]) as one, ScoresFile(scores[1]) as other:
            expected = (one.projected(3) + other.projected(3)) / np.float32(2)
        assert np.array_equal(joined.projected(3), expected.astype(np.float16))


def test_run_json_says_what_was_joined(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    summary = merge(config(tmp_path, *scores))
    facts = json.loads((tmp_path / "joined.run.json").read_text())
    assert [fold["scores"] for fold in facts["folds"]] == [str(path) for path in scores]
    assert [fold["checkpoint_sha256"] for fold in facts["folds"]] == ["digest0", "digest1"]
    assert facts["regions"] == {"selected": 22, "scored": 21, "skipped": 1}
    assert facts["identity"]["checkpoint_sha256"] == "digest0,digest1"
    assert facts["outputs"] == [path.name for path in summary.outputs]
    assert facts["next_commands"] == list(summary.next_commands)
    assert summary.next_commands[0].startswith(f"modisco motifs -i {tmp_path}/joined.counts_scores.h5 ")


def test_without_the_files_beside_them_scores_can_still_be_joined(
    folds: Folds, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    for path in tmp_path.iterdir():
        if path.suffix in (".bed", ".tsv"):
            path.unlink()
    summary = merge(config(tmp_path, *scores))
    assert summary.skipped is None
    assert "which regions were skipped is not known" in caplog.text
    assert "columns 5 and 7 to 9 of the new one are empty" in caplog.text
    assert (tmp_path / "joined.skipped_regions.tsv").read_text().count("\n") == 1
    first = (tmp_path / "joined.interpreted_regions.bed").read_text().splitlines()[0].split("\t")
    assert first[3:] == ["peak_0", "0", "+", "0", "-1", "-1", "30"]
    assert json.loads((tmp_path / "joined.run.json").read_text())["regions"]["selected"] is None


def test_folds_that_chose_their_own_references_are_joined_with_a_warning(
    folds: Folds, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def with_more(row: ScoredWindow) -> ScoredWindow:
        return replace(row, scores={"counts": replace(row.scores["counts"], n_references=40)})

    scores = [folds.fold(0, adaptive_references=0.1)]
    scores.append(folds.fold(1, adaptive_references=0.1, change=with_more))
    merge(config(tmp_path, *scores))
    assert "Each fold chose its own number of references" in caplog.text
    with ScoresFile(tmp_path / "joined.counts_scores.h5") as joined:
        assert set(joined.qc["n_references"]) == {20}


def test_renamed_scores_are_joined_under_their_own_target(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold).rename(tmp_path / f"renamed{fold}.h5") for fold in range(2)]
    assert merged_paths(config(tmp_path, *scores)).targets == ("counts",)
    assert merge(config(tmp_path, *scores)).skipped is None


def test_scores_of_fasta_records_get_no_bigwig_unless_asked(folds: Folds, tmp_path: Path) -> None:
    def of_record(row: ScoredWindow) -> ScoredWindow:
        region = replace(row.window.region, chrom=f"record{row.row}")
        window = replace(row.window, region=region, chrom=region.chrom, start=0, end=60, center=30)
        return replace(row, window=window)

    contigs = tuple(Contig(f"record{row}", 60) for row in range(21))
    scores = [folds.fold(fold, change=of_record, contigs=contigs) for fold in range(2)]
    assert merged_paths(config(tmp_path, *scores)).formats == {"h5"}
    assert merged_paths(config(tmp_path, *scores, formats=("bigwig",))).formats == {"bigwig"}


def shifted(row: ScoredWindow) -> ScoredWindow:
    if row.row != 7:
        return row
    start, end, center = row.window.start + 1, row.window.end + 1, row.window.center + 1
    return replace(row, window=replace(row.window, start=start, end=end, center=center))


def mutated(row: ScoredWindow) -> ScoredWindow:
    return replace(row, codes=(row.codes + 1) % 4) if row.row == 7 else row


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, r"seed is 0 in .*fold0.* and 1 in .*fold1.*; folds must be run with the same"),
        ({"references": "uniform"}, r"references is zeros in .*fold0.* and uniform in .*fold1"),
        ({"strands": "both"}, r"strands is not given in .*fold0.* and both in .*fold1"),
        ({"checkpoint": "digest0"}, r"fold0.* and .*fold1.* were made with the same checkpoint"),
        ({"checkpoint": "a,b"}, r"fold1.* is a mean over folds already"),
        ({"checkpoint": ""}, r"fold1.* does not say which checkpoint"),
        ({"change": shifted}, r"Row 7 is chr1:489-549 \(peak_7\) in .*fold0.* and chr1:490-550 .*fold1"),
        ({"change": mutated}, r"sequence of row 7 \(chr1:489-549 .* is not the same"),
        ({"n_rows": 20}, "differ in the number of regions"),
        ({"length": 64}, "differ in the window length"),
        ({"hypothetical": False}, "differ in the answer to whether there are hypothetical"),
        ({"score_dtype": "float16"}, "differ in the number type of the scores"),
        ({"contigs": (Contig("chr1", 5000), Contig("chr2", 3001))}, "differ in the genome"),
        ({"skipped": []}, r"fold0\.skipped_regions\.tsv and .*fold1\.skipped_regions\.tsv list different"),
    ],
)
def test_folds_that_were_not_run_alike_are_refused_and_nothing_is_left(
    folds: Folds, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    scores = [folds.fold(0), folds.fold(1, **options)]
    with pytest.raises(InputError, match=message):
        merge(config(tmp_path, *scores))
    assert not list(tmp_path.glob("joined*"))


def test_one_fold_has_no_mean(folds: Folds, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fold0.* is the only file of the target counts"):
        merge(config(tmp_path, folds.fold(0)))


def test_a_mean_is_not_joined_again(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    joined = merge(config(tmp_path, *scores, fold_sd=True)).outputs[0]
    with pytest.raises(InputError, match="is a mean over folds already"):
        merge(replace(config(tmp_path, scores[0], joined), output=tmp_path / "again"))


def test_the_folds_are_never_written_over(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    before = scores[1].read_bytes()
    with pytest.raises(UsageError, match=r"would write over .*fold1\.counts_scores\.h5"):
        merge(replace(config(tmp_path, *scores, overwrite=True), output=tmp_path / "fold1"))
    with pytest.raises(UsageError, match="would write over"):
        merge(
            replace(config(tmp_path, *scores, overwrite=True, formats=("bigwig",)), output=tmp_path / "fold1")
        )
    assert scores[1].read_bytes() == before


def test_existing_output_is_kept_unless_overwritten(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    merge(config(tmp_path, *scores))
    with pytest.raises(UsageError, match=r"This output exists: .*--overwrite"):
        merge(config(tmp_path, *scores))
    merge(config(tmp_path, *scores, overwrite=True))


def test_crop_wider_than_the_windows_is_refused(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    with pytest.raises(UsageError, match="--crop 61 is wider than the windows of 60 bases"):
        merge(config(tmp_path, *scores, crop=61))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], "line 1, is not row 0"),
        (lambda lines: lines[:-1], "line 21, is not row 20"),
        (lambda lines: [*lines, lines[0]], "more lines than its run has regions"),
        (lambda lines: [lines[0].replace("peak_0", "other"), *lines[1:]], "line 1, is not row 0"),
        (lambda lines: ["chr1\tx", *lines[1:]], "line 1, is not row 0"),
    ],
)
def test_a_bed_of_another_run_is_noticed(
    folds: Folds, tmp_path: Path, change: Callable[[list[str]], list[str]], message: str
) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    bed = tmp_path / "fold0.interpreted_regions.bed"
    bed.write_text("\n".join(change(bed.read_text().splitlines())) + "\n")
    with pytest.raises(InputError, match=message):
        merge(config(tmp_path, *scores))
    assert not list(tmp_path.glob("joined*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("chr1\t1\t2\n", "is not a list of skipped regions"), (None, "line 3, is damaged")],
)
def test_a_damaged_list_of_skipped_regions_is_noticed(
    folds: Folds, tmp_path: Path, text: str | None, message: str
) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    for fold in range(2):
        path = tmp_path / f"fold{fold}.skipped_regions.tsv"
        path.write_text(text or path.read_text() + "1\tone\tchr1\t3\n")
    with pytest.raises(InputError, match=message):
        merge(config(tmp_path, *scores))


def test_damaged_scores_end_it_and_leave_nothing(folds: Folds, tmp_path: Path) -> None:
    scores = [folds.fold(fold) for fold in range(2)]
    with h5py.File(scores[1]) as file:
        place = file["projected_shap/seq"].id.get_chunk_info(0)
    data = bytearray(scores[1].read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    scores[1].write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"fold1.* is damaged: /projected_shap/seq cannot be read"):
        merge(config(tmp_path, *scores))
    assert not list(tmp_path.glob("joined*"))


def test_memory_does_not_grow_with_the_number_of_regions(folds: Folds, tmp_path: Path) -> None:
    def peak(n_rows: int) -> int:
        scores = []
        for fold in range(2):
            template = folds.rows(fold, 1, 600, ("counts",), True)[0]
            rows = [replace(template, row=row) for row in range(n_rows)]
            paths = folds.write(f"rows{n_rows}fold{fold}", rows, f"digest{fold}", window=600)
            scores.append(paths.scores_h5("counts"))
        tracemalloc.start()
        merge(replace(config(tmp_path, *scores), output=tmp_path / f"joined{n_rows}"))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(50)  # imports and caches are counted once
    # The scores of 500 further rows of two folds would be 19 MB; their regions and numbers are below 1 MB.
    assert peak(700) < peak(200) + 2**21
