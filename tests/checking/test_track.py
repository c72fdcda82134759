"""A bigWig is compared with its scores base by base, and what differs is counted and placed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyBigWig
import pytest
from numpy.typing import NDArray

from dlgenome.checking import Verdict, VerifyConfig, track, verify
from dlgenome.checking.track import Track, check_track, compare_track

MakeRun = Callable[..., Any]
SIZES = {"chr1": 900, "chrEmpty": 70, "chr2": 500}


def tracks_by_hand(run: Any, overlap: str, crop: int | None) -> dict[str, NDArray[np.float32]]:
    """Every base on its own: the values of all windows on it, joined as docs/files.md says."""
    tracks = {}
    for chrom, size in SIZES.items():
        track = np.full(size, np.nan, dtype=np.float32)
        for base in range(size):
            on_it = []
            for row in run.rows:
                window, half = row.window, (crop or 40) // 2
                start = window.center - half
                if window.chrom == chrom and start <= base < start + (crop or 40):
                    value = row.scores["counts"].projected[:, base - window.start].sum()
                    on_it.append((row.row, window.center, value))
            if on_it:
                track[base] = joined(on_it, base, overlap)
        tracks[chrom] = track
    return tracks


def joined(on_it: list[tuple[int, int, Any]], base: int, overlap: str) -> Any:
    if overlap == "mean":
        return np.mean([float(value) for _, _, value in on_it])
    if overlap == "max":
        return max(on_it, key=lambda one: (abs(one[2]), -one[0]))[2]
    if overlap == "first":
        return min(on_it)[2]
    # A centre lies between two bases; a base as far from two goes to the right one.
    return min(on_it, key=lambda one: (abs(2 * one[1] - 2 * base - 1), -one[1], one[0]))[2]


def write_bigwig(path: Path, tracks: dict[str, NDArray[np.float32]], sizes: dict[str, int] = SIZES) -> Path:
    """With the library that everybody uses, base by base."""
    with pyBigWig.open(str(path), "w") as bigwig:
        bigwig.addHeader(list(sizes.items()))
        for chrom, track in tracks.items():
            places = np.flatnonzero(~np.isnan(track))
            if len(places):
                bigwig.addEntries(
                    [chrom] * len(places),
                    places.tolist(),
                    ends=(places + 1).tolist(),
                    values=track[places].astype(float).tolist(),
                )
    return path


def messages(verdict: Verdict) -> list[str]:
    return [problem.message for problem in verdict.problems]


@pytest.mark.parametrize(("overlap", "crop"), [("nearest", None), ("mean", 20), ("max", None), ("first", 9)])
def test_a_track_worked_out_by_hand_agrees(
    make_run: MakeRun, tmp_path: Path, overlap: str, crop: int | None
) -> None:
    run = make_run(overlap=overlap, crop=crop)
    tracks = tracks_by_hand(run, overlap, crop)
    path = write_bigwig(tmp_path / "hand.bw", tracks)
    verdict = compare_track(Track(path, run.scores, overlap, crop))  # type: ignore[arg-type]
    assert [problem.message for problem in verdict.problems] == []
    assert verdict.bases == sum(int((~np.isnan(track)).sum()) for track in tracks.values())
    assert messages(verify(run.scores, VerifyConfig(bigwig=path))) == []


@pytest.mark.parametrize("length", [1, 30, 90, 10**6])
def test_how_many_bases_are_read_at_once_changes_nothing(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    run = make_run()
    tracks = tracks_by_hand(run, "nearest", None)
    tracks["chr1"][[40, 41, 200]] += 1
    tracks["chr2"][np.flatnonzero(np.isnan(tracks["chr2"]))[[0, -1]]] = 1
    path = write_bigwig(tmp_path / "wrong.bw", tracks)
    expected = compare_track(Track(path, run.scores))
    assert len(expected.problems) == 2
    monkeypatch.setattr(track, "STRETCH_BASES", length)
    monkeypatch.setattr(track, "GAP_BASES", max(3, length // 2))
    assert compare_track(Track(path, run.scores)) == expected


def test_every_kind_of_wrong_base_is_counted_and_placed(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    tracks = tracks_by_hand(run, "nearest", None)
    covered, empty = np.flatnonzero(~np.isnan(tracks["chr1"])), np.flatnonzero(np.isnan(tracks["chr1"]))
    changed, removed, added = covered[[30, 50, 51]], covered[[7, 9]], empty[empty > covered[0]][[0, -1]]
    expected = f"{changed[0]:,} (3 instead of {tracks['chr1'][changed[0]]:.6g})"
    due = f"{removed[0]:,} ({tracks['chr1'][removed[0]]:.6g} is due)"
    tracks["chr1"][changed] = 3
    tracks["chr1"][removed] = np.nan
    tracks["chr1"][added] = 0
    tracks["chrEmpty"][5:8] = 2
    path = write_bigwig(tmp_path / "wrong.bw", tracks)
    assert messages(verify(run.scores, VerifyConfig(bigwig=path))) == [
        f"{path} has other values than the scores give at 3 bases; the first is chr1:{expected}.",
        f"{path} has no value, though a window lies there, at 2 bases; the first is chr1:{due}.",
        f"{path} has a value, though no window lies there, at 5 bases; the first is chr1:{added[0]:,} (0).",
    ]


def test_the_bigwig_of_another_run_is_found(make_run: MakeRun) -> None:
    run, other = make_run(), make_run("other", seed=1)
    other.paths.bigwig("counts").replace(run.paths.bigwig("counts"))
    (found,) = messages(verify(run.scores, VerifyConfig()))
    assert "run.counts_scores.bw has other values than the scores give at " in found


def test_a_track_made_by_another_rule_is_found(make_run: MakeRun) -> None:
    run, other = make_run(), make_run("other", overlap="max")
    other.paths.bigwig("counts").replace(run.paths.bigwig("counts"))
    (found,) = messages(verify(run.scores, VerifyConfig()))
    assert "has other values than the scores give" in found


def test_the_track_of_the_deviation_is_compared_with_its_own_array(make_run: MakeRun) -> None:
    run = make_run(extras=("fold_sd",))
    run.paths.bigwig("counts").replace(run.paths.extra_bigwigs("counts")["fold_sd"])
    found = messages(verify(run.scores, VerifyConfig()))
    assert any("run.counts_fold_sd.bw has other values" in message for message in found)
    assert any("run.counts_scores.bw is not there" in message for message in found)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"chr1": 900, "chr2": 500}, "it lacks 1 contigs, the first is chrEmpty"),
        ({**SIZES, "chrM": 16}, "it has 1 more contigs, the first is chrM"),
        (
            {**SIZES, "chr2": 501},
            "1 contigs have another length, the first is chr2 with 501 bases inst",
        ),
    ],
)
def test_a_bigwig_of_another_genome_is_named(
    make_run: MakeRun, tmp_path: Path, sizes: dict[str, int], words: str
) -> None:
    run = make_run()
    path = write_bigwig(tmp_path / "other.bw", tracks_by_hand(run, "nearest", None) and {}, sizes)
    assert any(words in message for message in messages(verify(run.scores, VerifyConfig(bigwig=path))))


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_bigwig_is_a_problem(make_run: MakeRun, kept: float) -> None:
    run = make_run()
    path = run.paths.bigwig("counts")
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    (found,) = messages(verify(run.scores, VerifyConfig()))
    assert str(path) in found
    assert "cannot be read" in found


def test_a_missing_bigwig_that_was_given_is_a_problem(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    assert messages(verify(run.scores, VerifyConfig(bigwig=tmp_path / "x.bw"))) == [
        f"{tmp_path / 'x.bw'} is not there."
    ]


def test_scores_of_which_no_track_can_be_made_are_a_problem(make_run: MakeRun) -> None:
    run = make_run()
    with h5py.File(run.scores, "r+") as file:
        file["projected_shap/seq"][3, 0, 0] = np.nan
    assert any(
        "scores that are not finite numbers" in m for m in messages(verify(run.scores, VerifyConfig()))
    )


def test_a_crash_of_the_library_is_a_problem(make_run: MakeRun) -> None:
    run = make_run()
    path = run.paths.bigwig("counts")
    assert check_track(Track(path, run.scores)).problems == ()
    data = bytearray(path.read_bytes())
    data[7] = 255  # so many zoom levels that the library reads beyond what it has
    path.write_bytes(bytes(data))
    (problem,) = check_track(Track(path, run.scores)).problems
    assert f"{path} cannot be read (the library that reads it crashed)" in problem.message
