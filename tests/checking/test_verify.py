"""A sound run passes, and every kind of damage made by hand is found and named with its rows."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlgenome.checking import Verdict, VerifyConfig, verify
from dlgenome.errors import UsageError

MakeRun = Callable[..., Any]
SCORES = "projected_shap/seq"


def messages(verdict: Verdict) -> list[str]:
    return [problem.message for problem in verdict.problems]


def check(run: Any, **options: Any) -> Verdict:
    return verify(run.scores, VerifyConfig(**options))


def alone(run: Any) -> list[str]:
    return messages(check(run, alone=True))


def flip_byte(file: h5py.File, row: int = 4) -> None:
    """Change the lowest byte of one score that is not zero."""
    values = file[SCORES][row]
    base, position = np.argwhere(values)[0]
    stored = values[base, position : position + 1].view(np.uint8)
    stored[0] ^= 1
    file[SCORES][row] = values


def with_new_checksums(file: h5py.File) -> None:
    file["qc/crc32"][:] = [zlib.crc32(row.tobytes()) for row in file[SCORES][:]]


def set_value(name: str, row: Any, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][row] = value

    return change


def swap_scores(file: h5py.File) -> None:
    """Rows 2 and 5 exchange their scores and checksums, but not their sequences."""
    for name in (SCORES, "shap/seq", "qc/crc32"):
        values = file[name][:]
        values[[2, 5]] = values[[5, 2]]
        file[name][:] = values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"overlap": "mean"},
        {"overlap": "max", "crop": 11},
        {"overlap": "first", "extras": ("fold_sd", "reference_se")},
        {"score_dtype": "float16"},
        {"hypothetical": False, "method": "random"},
        {"formats": ("h5",)},
        {"n_rows": 1},
    ],
)
def test_a_sound_run_passes_every_check(make_run: MakeRun, options: dict[str, Any]) -> None:
    run = make_run(**options)
    verdict = check(run, models=(run.checkpoint,), regions=run.regions, genome=run.genome)
    assert messages(verdict) == []
    assert verdict.checked.keys() >= {"structure", "numbers", "scores", "run.json", "files", "skipped", "BED"}
    assert verdict.checked.keys() >= {"checkpoint", "regions", "genome"}
    assert ("run.counts_scores.bw" in verdict.checked) == ("bigwig" in options.get("formats", "bigwig"))
    assert ("run.counts_fold_sd.bw" in verdict.checked) == ("extras" in options)
    assert (verdict.n_regions, verdict.length) == (len(run.rows), 40)


def test_the_completeness_error_is_worked_out_anew(make_run: MakeRun) -> None:
    run = make_run()
    verdict = check(run)
    assert verdict.completeness is not None
    assert verdict.completeness.maximum == pytest.approx(12e-6, rel=1e-4)
    window = run.rows[11].window
    assert verdict.worst_region == f"row 11, {window.chrom}:{window.start}-{window.end} peak_11"
    assert verdict.over(11e-6)
    assert not verdict.over(13e-6)
    assert not verdict.over(None)
    run.edit(set_value("qc/delta_error", slice(None), 0.0))
    verdict = check(run)
    assert verdict.over(11e-6)
    assert any("/qc/delta_error is not what /qc/sum" in message for message in messages(verdict))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_byte, "row 4 (chr1:133-173 peak_4): /qc/crc32 is not the checksum of /projected_shap/seq"),
        (set_value("qc/crc32", 7, 1), "row 7 (chr1:244-284 peak_7): /qc/crc32 is not the checksum"),
        (swap_scores, "rows 2, 5 (first chr2:59-99 peak_2): /projected_shap/seq is not /raw/seq times"),
        (
            set_value("shap/seq", (3, 0, 0), np.nan),
            "row 3 (chr1:96-136 peak_3): the scores are not all",
        ),
        (set_value(SCORES, (3, 0, 0), np.inf), "row 3 (chr1:96-136 peak_3): the scores are not all"),
        (set_value("raw/seq", (3, slice(None), 2), 1), "row 3 (chr1:96-136 peak_3): /raw/seq is not one"),
        (set_value("raw/seq", (3, 0, 2), 5), "/raw/seq is not one-hot"),
        (
            set_value("raw/seq", (0, 1, 0), 1),
            "row 0 (chr1:-15-25 peak_0): /raw/seq has bases where",
        ),
        (set_value("qc/sum", [1, 6], 9.0), "rows 1, 6 (first chr1:22-62 peak_1): /qc/sum is not the sum"),
        (set_value("qc/prediction", 1, np.nan), "a prediction in /qc is not a finite number"),
        (set_value("qc/mean_abs_delta", 1, -1.0), "/qc/mean_abs_delta is not a number, or negative"),
        (
            set_value("qc/mean_abs_delta", slice(None), np.nan),
            "rows 0-11 (first chr1:-15-25 peak_0): /qc",
        ),
        (set_value("qc/n_references", 1, 0), "row 1 (chr1:22-62 peak_1): /qc/n_references does not fit"),
        (set_value("qc/n_references", 1, 40), "row 1 (chr1:22-62 peak_1): /qc/n_references does not fit"),
        (set_value("regions/chrom", 1, b"chr9"), "row 1 (chr9:22-62 peak_1): the contig is not in /genome"),
        (set_value("regions/end", 1, 61), "the window is not as long as the sequences"),
        (set_value("regions/summit", 1, 43), "/regions/summit is not the centre"),
        (set_value("regions/strand", 1, b"x"), "/regions/strand is not +, - or a dot"),
        (
            set_value("regions/input_row", 1, 4),
            "row 2 (chr2:59-99 peak_2): /regions/input_row is that",
        ),
        (set_value("regions/input_row", 1, -1), "/regions/input_row is negative"),
        (set_value("genome/length", 1, 71), "/genome is not what the attribute genome_digest was made of"),
        (set_value("genome/chrom", 1, b"chr1"), "/genome/chrom names chr1 twice"),
        (lambda file: file.attrs.__delitem__("seed"), "the root attributes lack seed"),
        (
            lambda file: file.attrs.__setitem__("window", 41),
            "the attribute window is 41, and the scores",
        ),
        (lambda file: file.attrs.__delitem__("format_version"), "it lacks the attribute format_version"),
        (lambda file: file.__delitem__("qc/sum"), "it lacks /qc/sum"),
    ],
)
def test_damage_to_the_scores_file_is_named(
    make_run: MakeRun, damage: Callable[[h5py.File], None], words: str
) -> None:
    run = make_run(formats=("h5",))
    run.edit(damage)
    assert any(words in message for message in alone(run)), alone(run)


def test_rounds_of_references_may_differ_between_regions(make_run: MakeRun) -> None:
    run = make_run(adaptive_references=0.1, formats=("h5",))
    run.edit(set_value("qc/n_references", [2, 5], 60))
    assert alone(run) == []
    run.edit(set_value("qc/n_references", [2, 5], 30))
    assert alone(run) == [
        "rows 2, 5 (first chr2:59-99 peak_2): /qc/n_references does not fit the attribute n_references."
    ]


def test_a_score_with_a_new_checksum_still_does_not_fit_the_others(make_run: MakeRun) -> None:
    run = make_run()
    run.edit(flip_byte)
    run.edit(with_new_checksums)
    assert alone(run) == ["row 4 (chr1:133-173 peak_4): /projected_shap/seq is not /raw/seq times /shap/seq."]


def test_scores_where_no_base_is_are_found_without_hypothetical_ones(make_run: MakeRun) -> None:
    run = make_run(hypothetical=False, method="random")

    def damage(file: h5py.File) -> None:
        empty = np.argwhere(file["raw/seq"][3] == 0)[0]
        file[SCORES][3, empty[0], empty[1]] = 1e-9
        with_new_checksums(file)

    run.edit(damage)
    assert len(alone(run)) == 1
    assert "row 3 (chr1:96-136 peak_3): /projected_shap/seq is not zero" in alone(run)[0]


def test_every_problem_is_told_and_not_the_first_alone(make_run: MakeRun) -> None:
    run = make_run()
    for damage in (flip_byte, set_value("qc/sum", 8, 5.0), set_value("regions/strand", 1, b"x")):
        run.edit(damage)
    run.paths.skipped_tsv.unlink()
    found = messages(check(run))
    for words in ("row 1 ", "row 4 (", "row 8 (", "skipped_regions.tsv is not there"):
        assert any(words in message for message in found)


def test_windows_over_an_end_are_wrong_without_padding(make_run: MakeRun) -> None:
    run = make_run(edge="drop")
    assert alone(run) == [
        "row 0 (chr1:-15-25 peak_0): the window reaches over the end of its contig, which only --edge pad "
        "allows."
    ]


def test_windows_beside_their_contig_are_wrong_even_with_padding(make_run: MakeRun) -> None:
    run = make_run(centers=[100, 200, 700])
    assert alone(run) == ["row 2 (chr2:680-720 peak_2): the window lies outside its contig."]


def test_a_damaged_chunk_does_not_hide_what_is_wrong_elsewhere(make_run: MakeRun) -> None:
    run = make_run(n_rows=300, length=40)
    with h5py.File(run.scores) as file:
        chunk = file[SCORES].id.get_chunk_info(0)
        rows = file[SCORES].chunks[0]
    data = bytearray(run.scores.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    run.scores.write_bytes(bytes(data))
    run.edit(set_value("qc/crc32", 299, 1))
    found = alone(run)
    assert rows < 299
    assert any(f"rows 0-{rows - 1} (first chr1:" in text and "cannot be read" in text for text in found)
    assert any("row 299 (" in text and "/qc/crc32" in text for text in found)


def test_a_truncated_file_is_one_problem(make_run: MakeRun) -> None:
    run = make_run()
    data = run.scores.read_bytes()
    for size in (0, 100, len(data) // 2, len(data) - 1):
        run.scores.write_bytes(data[:size])
        verdict = check(run)
        assert len(verdict.problems) == 1
        assert str(run.scores) in verdict.problems[0].message


def test_a_missing_file_and_a_text_file_are_problems(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_text("chr1\t1\t2\n")
    for path in (tmp_path / "x.h5", tmp_path / "nothing.h5", tmp_path):
        assert len(verify(path, VerifyConfig()).problems) == 1


def test_several_things_missing_are_all_named(make_run: MakeRun) -> None:
    run = make_run()
    run.edit(lambda file: [file.__delitem__(name) for name in ("qc/sum", "regions/name")])
    found = alone(run)
    assert len(found) == 2
    assert "/qc/sum" in "".join(found)
    assert "/regions/name" in "".join(found)


def test_values_of_the_wrong_kind_are_named(make_run: MakeRun) -> None:
    run = make_run()

    def change(file: h5py.File) -> None:
        values = file["regions/start"][:].astype("S5")
        del file["regions/start"]
        file["regions/start"] = values

    run.edit(change)
    assert "the values of /regions/start are of the kind |S5" in alone(run)[0]


def test_swapped_lines_of_the_bed_are_named(make_run: MakeRun) -> None:
    run = make_run()
    lines = run.paths.regions_bed.read_text().splitlines(keepends=True)
    lines[2], lines[3] = lines[3], lines[2]
    run.paths.regions_bed.write_text("".join(lines))
    (found,) = messages(check(run))
    assert found.startswith("rows 2-3 (first chr2:59-99 peak_2): ")
    assert "interpreted_regions.bed has another region on the line of this row" in found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-1], "has 11 lines, and there are 12 regions"),
        (lambda lines: [*lines, lines[0]], "has 13 lines, and there are 12 regions"),
        (lambda lines: [line.replace("peak_5", "peak_x") for line in lines], "row 5 (chr2"),
        (
            lambda lines: [line.replace("\t35\t", "\t1001\t") for line in lines],
            "does not have the ten",
        ),
        (lambda lines: ["chr1\t1\t2\n", *lines[1:]], "row 0 (chr1:-15-25 peak_0): "),
        (lambda lines: ["\0\n"] * 12, "rows 0-11"),
    ],
)
def test_a_bed_that_does_not_fit_is_named(make_run: MakeRun, change: Any, words: str) -> None:
    run = make_run()
    lines = run.paths.regions_bed.read_text().splitlines(keepends=True)
    assert lines[5].split("\t")[4] == "35"
    run.paths.regions_bed.write_text("".join(change(lines)))
    assert any(words in message for message in messages(check(run)))


def test_a_run_without_run_json_is_not_finished(make_run: MakeRun) -> None:
    run = make_run()
    run.paths.run_json.unlink()
    verdict = check(run)
    assert messages(verdict) == [
        f"{run.paths.run_json} is not there, so the run is not known to have finished; finish it with "
        "--resume, or copy the file from where the run wrote it."
    ]
    assert "does not say how overlapping windows were joined" in verdict.unchecked["run.counts_scores.bw"]
    assert alone(run) == []


def test_run_json_of_another_run_is_named(make_run: MakeRun) -> None:
    run, other = make_run(), make_run("other", seed=1)
    shutil.copy(other.paths.run_json, run.paths.run_json)
    assert any(
        "is of another run: its seed is 1, and that of the scores is 0" in m for m in messages(check(run))
    )


def change_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    facts = json.loads(path.read_text())
    change(facts)
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts["regions"].update(scored=11), "counts 11 scored regions, and there are 12"),
        (lambda facts: facts["regions"].update(skipped=4), "lists 1 regions, and"),
        (lambda facts: facts["regions"].update(selected=40), "counts 40 selected regions, but 12 scored"),
        (lambda facts: facts["targets"].clear(), "does not name the target counts"),
        (lambda facts: facts["identity"].clear(), "does not say what was run"),
        (lambda facts: facts["completeness"]["counts"].update(maximum=0.5), "has other completeness errors"),
        (lambda facts: facts["completeness"].clear(), "has other completeness errors"),
        (lambda facts: facts["outputs"].append("run.counts_attr.npz"), "counts_attr.npz is not there"),
        (lambda facts: facts.update(regions=[], identity=3), "does not say what was run"),
    ],
)
def test_a_run_json_that_does_not_fit_is_named(make_run: MakeRun, change: Any, words: str) -> None:
    run = make_run()
    change_json(run.paths.run_json, change)
    assert any(words in message for message in messages(check(run)))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\0"])
def test_a_damaged_run_json_is_a_problem_and_no_crash(make_run: MakeRun, text: str) -> None:
    run = make_run()
    run.paths.run_json.write_text(text)
    assert any("run.json is damaged" in message for message in messages(check(run)))


def test_files_that_the_run_wrote_and_are_gone_are_named(make_run: MakeRun) -> None:
    run = make_run()
    run.paths.bigwig("counts").unlink()
    run.paths.regions_bed.unlink()
    found = messages(check(run))
    assert len(found) == 2
    assert all(
        "is not there, and" in message and "says that the run wrote it" in message for message in found
    )


@pytest.mark.parametrize("name", ["skipped_tsv", "regions_bed", "scores_h5", "npz"])
def test_a_byte_that_no_other_check_looks_at_is_found_by_the_digest(make_run: MakeRun, name: str) -> None:
    run = make_run(formats=("h5", "bigwig", "npz"), skipped=1)
    path = getattr(run.paths, name)
    path = path("counts") if callable(path) else path
    path = path[0] if isinstance(path, tuple) else path
    content = path.read_bytes()
    if name == "regions_bed":
        fields = content.split(b"\t")
        fields[6] = b"77"
        path.write_bytes(b"\t".join(fields))
    elif name == "skipped_tsv":
        path.write_bytes(content[:-2] + b"?\n")
    else:
        path.write_bytes(content + b"?")
    (found,) = verify(run.scores, VerifyConfig()).problems
    assert found.check == "digests"
    assert f"{path} is not the file that the run wrote" in found.message


def test_a_renamed_run_is_still_found(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for path in run.paths.all():
        path.rename(path.with_name(path.name.replace("run.", "new name.", 1)))
    verdict = verify(tmp_path / "new name.counts_scores.h5", VerifyConfig())
    assert messages(verdict) == []
    assert "new name.counts_scores.bw" in verdict.checked


def test_a_renamed_scores_file_says_that_its_run_cannot_be_found(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    moved = run.scores.rename(tmp_path / "scores.h5")
    (found,) = messages(verify(moved, VerifyConfig()))
    assert "is not called PREFIX.counts_scores.h5" in found
    assert messages(verify(moved, VerifyConfig(alone=True))) == []


def test_other_inputs_are_named_with_both_checksums(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    (found,) = messages(check(run, models=(other,)))
    assert found.startswith(f"{other} is not the checkpoint of the scores: its SHA-256 is ")
    (found,) = messages(check(run, regions=other))
    assert found.startswith(f"{other} is not the file of regions")
    (found,) = messages(check(run, models=(run.checkpoint, other)))
    assert found == "the scores are of 1 checkpoints, and 2 were given."
    (found,) = messages(check(run, models=(tmp_path / "missing",)))
    assert "no such file" in found


def test_folds_are_compared_one_by_one(make_run: MakeRun, tmp_path: Path) -> None:
    import hashlib

    folds = [tmp_path / f"fold{number}" for number in range(2)]
    for fold in folds:
        fold.write_text(fold.name)
    digests = ",".join(hashlib.sha256(fold.read_bytes()).hexdigest() for fold in folds)
    run = make_run(checkpoint_sha256=digests)
    assert messages(check(run, models=tuple(folds))) == []
    found = messages(check(run, models=tuple(folds[::-1])))
    assert len(found) == 2
    assert all("it is another of the folds" in message for message in found)


def test_another_genome_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    text = run.genome.read_text()
    other = tmp_path / "other.fa"
    other.write_text(text + ">more\nACGT\n")
    (found,) = messages(check(run, genome=other))
    assert "is another genome: its names and lengths" in found
    lines = text.split("\n")
    place = run.rows[3].window.center
    lines[1] = lines[1][:place] + {"A": "C"}.get(lines[1][place], "A") + lines[1][place + 1 :]
    other.write_text("\n".join(lines))
    (found,) = messages(check(run, genome=other))
    assert "/raw/seq does not hold the bases that" in found
    assert "row" in found


def test_a_limit_on_errors_that_there_are_not_is_a_usage_error(make_run: MakeRun) -> None:
    run = make_run(method="random")
    run.edit(set_value("qc/mean_abs_delta", slice(None), np.nan))
    run.edit(set_value("qc/delta_error", slice(None), np.nan))
    assert alone(run) == []
    with pytest.raises(UsageError, match="contributions need not add up"):
        check(run, max_delta=0.1, alone=True)


@pytest.mark.parametrize("options", [{"max_delta": 0.0}, {"alone": True, "bigwig": Path("x.bw")}])
def test_settings_that_make_no_sense_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        VerifyConfig(**options)


def test_files_from_before_mean_abs_delta_was_stored_are_checked_as_far_as_they_go(make_run: MakeRun) -> None:
    run = make_run()
    run.edit(lambda file: file.__delitem__("qc/mean_abs_delta"))
    verdict = check(run, alone=True)
    assert messages(verdict) == []
    assert verdict.completeness is not None
    assert verdict.completeness.maximum == pytest.approx(12e-6, rel=1e-4)


def test_progress_counts_regions(make_run: MakeRun) -> None:
    run = make_run()
    seen: list[tuple[int, int]] = []
    verify(run.scores, VerifyConfig(alone=True), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)


def test_memory_hardly_grows_with_the_number_of_regions(make_run: MakeRun) -> None:
    def peak(n_rows: int) -> int:
        centers = [20 + 7 * row % 450 for row in range(n_rows)]
        run = make_run(f"run{n_rows}", centers=centers, length=256, formats=("h5",))
        tracemalloc.start()
        try:
            assert verify(run.scores, VerifyConfig(genome=run.genome)).problems == []
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = 512, 1536
    peak(few)  # what is imported and compiled once
    assert peak(many) - peak(few) < 200 * (many - few)
