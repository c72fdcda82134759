"""The main job on simulated data: which files it writes, and that every number in them is right."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyBigWig
import pytest
from click.testing import Result
from numpy.typing import NDArray

from dlgenome.encoding import decode, one_hot
from dlgenome.references.registry import parse_references
from dlgenome.types import Codes
from dlgenome_sim.files import write_fasta
from dlgenome_sim.genome import SimulatedGenome

Attribute = Callable[..., Result]
Datasets = dict[str, NDArray[Any]]
Read = Callable[[Path], Datasets]
LENGTH = 100


def names_beside(prefix: Path) -> set[str]:
    return {path.name for path in prefix.parent.iterdir()}


def bed_rows(prefix: Path) -> list[list[str]]:
    lines = Path(f"{prefix}.interpreted_regions.bed").read_text().splitlines()
    return [line.split("\t") for line in lines]


def facts(prefix: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(f"{prefix}.run.json").read_text())
    return found


def window_codes(simulated: SimulatedGenome, chrom: str, center: int) -> Codes:
    start = center - LENGTH // 2
    return simulated.contigs[chrom][start : start + LENGTH]


def peak_codes(simulated: SimulatedGenome) -> Codes:
    return np.stack([window_codes(simulated, peak.chrom, peak.summit) for peak in simulated.peaks])


def test_the_files_have_the_names_of_the_contract_and_nothing_is_left_over(finished: Path) -> None:
    assert names_beside(finished) == {
        "run.counts_scores.h5",
        "run.counts_scores.bw",
        "run.counts_ohe.npz",
        "run.counts_attr.npz",
        "run.interpreted_regions.bed",
        "run.skipped_regions.tsv",
        "run.run.json",
    }


def test_the_hdf5_holds_the_sequences_the_predictions_and_scores_that_add_up(
    finished: Path, simulated: SimulatedGenome, inputs: Path, read_scores: Read
) -> None:
    import torch

    from dlgenome.model.checkpoint import load_model

    found = read_scores(Path(f"{finished}.counts_scores.h5"))
    codes = peak_codes(simulated)
    assert (found["raw/seq"] == one_hot(codes)).all()
    model = load_model(inputs / "bpnet.safetensors").module
    references = parse_references(
        "dinucleotide-shuffle", n_references=3, seed=0, window=LENGTH, n_input_rows=len(codes)
    ).draw_batch(codes, np.arange(len(codes)))

    def predict(sequences: Codes) -> NDArray[np.float64]:
        with torch.no_grad():
            flat = torch.from_numpy(one_hot(sequences.reshape(-1, LENGTH)).astype(np.float32))
            counts = model(flat)[1].numpy().astype(np.float64)
        return np.asarray(counts.reshape(sequences.shape[:-1]))

    prediction, of_references = predict(codes), predict(references)
    np.testing.assert_allclose(found["qc/prediction"], prediction, atol=1e-6)
    np.testing.assert_allclose(found["qc/reference_prediction"], of_references.mean(axis=1), atol=1e-6)
    projected = found["projected_shap/seq"]
    assert (projected == found["raw/seq"] * found["shap/seq"]).all()
    np.testing.assert_allclose(found["qc/sum"], projected.sum(axis=(1, 2), dtype=np.float64), atol=1e-6)
    scale = np.abs(prediction[:, None] - of_references).mean(axis=1)
    missed = np.abs(found["qc/sum"] - (prediction - of_references.mean(axis=1)))
    np.testing.assert_allclose(found["qc/delta_error"], missed / scale, atol=2e-5)
    assert found["qc/delta_error"].max() < 2e-5
    assert found["qc/n_references"].tolist() == [3] * 12
    assert found["qc/crc32"].tolist() == [zlib.crc32(row.tobytes()) for row in projected]
    assert np.abs(projected).max() > 1e-3


def test_rows_of_bed_hdf5_and_npz_belong_together(
    finished: Path, simulated: SimulatedGenome, read_scores: Read
) -> None:
    found = read_scores(Path(f"{finished}.counts_scores.h5"))
    rows = bed_rows(finished)
    assert len(rows) == len(simulated.peaks) == 12
    for index, (row, peak) in enumerate(zip(rows, simulated.peaks, strict=True)):
        start, end, offset = int(row[1]), int(row[2]), int(row[9])
        assert (row[0], row[3], row[5]) == (peak.chrom, peak.name, peak.strand)
        assert (start, end, start + offset) == (peak.summit - 50, peak.summit + 50, peak.summit)
        assert [float(value) for value in row[6:9]] == [peak.signal, -1.0, -1.0]
        stored = [found[f"regions/{name}"][index] for name in ("chrom", "start", "end", "name", "summit")]
        assert stored == [peak.chrom.encode(), start, end, peak.name.encode(), peak.summit]
    assert found["regions/input_row"].tolist() == list(range(12))
    assert found["genome/chrom"].tolist() == [b"chrA", b"chrB"]
    assert found["genome/length"].tolist() == [20_000, 12_000]
    for name, dataset in (("ohe", "raw/seq"), ("attr", "shap/seq")):
        with np.load(f"{finished}.counts_{name}.npz") as arrays:
            assert arrays["arr_0"].tobytes() == found[dataset].tobytes()
    assert Path(f"{finished}.skipped_regions.tsv").read_text().count("\n") == 1


def test_the_bigwig_takes_every_base_from_the_window_with_the_nearest_centre(
    attribute: Attribute, tmp_path: Path, read_scores: Read
) -> None:
    centers = (3000, 3040, 3040, 3095, 5000)
    regions = tmp_path / "overlapping.bed"
    regions.write_text("".join(f"chrA\t{center - 10}\t{center + 10}\n" for center in centers))
    result = attribute("-o", tmp_path / "run", regions=regions)
    assert result.exit_code == 0, result.stderr
    tracks = read_scores(tmp_path / "run.counts_scores.h5")["projected_shap/seq"].sum(axis=1)
    with pyBigWig.open(str(tmp_path / "run.counts_scores.bw")) as bigwig:
        assert list(bigwig.chroms().items()) == [("chrA", 20_000), ("chrB", 12_000)]
        values = bigwig.values("chrA", 0, 20_000, numpy=True)
        assert bigwig.intervals("chrB") is None
    for position in range(2900, 5100):
        inside = [row for row, center in enumerate(centers) if center - 50 <= position < center + 50]
        if not inside:
            assert np.isnan(values[position])
            continue
        # Twice the distance from the middle of the base; equally far goes right, of equal centres the first.
        owner = min(inside, key=lambda row: (abs(2 * centers[row] - 2 * position - 1), -centers[row], row))
        assert values[position] == tracks[owner][position - centers[owner] + 50]
    assert np.isfinite(values).sum() == (3095 + 50) - (3000 - 50) + 100


def test_padded_windows_keep_their_place_and_end_at_the_chromosome(
    attribute: Attribute, tmp_path: Path, simulated: SimulatedGenome, read_scores: Read
) -> None:
    regions = tmp_path / "edges.bed"
    regions.write_text("chrB\t11960\t12000\tlast\nchrA\t0\t20\tfirst\nchrA\t1990\t2010\tmiddle\n")
    dropped = attribute("-o", tmp_path / "drop", regions=regions)
    assert dropped.exit_code == 0, dropped.stderr
    assert [row[3] for row in bed_rows(tmp_path / "drop")] == ["middle"]
    skipped = (tmp_path / "drop.skipped_regions.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[6] for line in skipped] == [
        "window runs past the end of chrB (length 12000)",
        "window runs past the start of chrA",
    ]
    counts = facts(tmp_path / "drop")["regions"]
    assert (counts["selected"], counts["scored"], counts["skipped"]) == (3, 1, 2)

    padded = attribute("-o", tmp_path / "pad", "--edge", "pad", regions=regions)
    assert padded.exit_code == 0, padded.stderr
    found = read_scores(tmp_path / "pad.counts_scores.h5")
    assert found["regions/start"].tolist() == [11_930, -40, 1950]
    assert found["regions/end"].tolist() == [12_030, 60, 2050]
    assert found["regions/summit"].tolist() == [11_980, 10, 2000]
    assert (found["raw/seq"][0, :, :70] == one_hot(simulated.contigs["chrB"][11_930:])).all()
    assert not found["raw/seq"][0, :, 70:].any()
    assert not found["shap/seq"][0, :, 70:].any() or not found["projected_shap/seq"][0, :, 70:].any()
    assert [row[1:3] + row[9:] for row in bed_rows(tmp_path / "pad")] == [
        ["11930", "12000", "50"],
        ["0", "60", "10"],
        ["1950", "2050", "50"],
    ]
    with pyBigWig.open(str(tmp_path / "pad.counts_scores.bw")) as bigwig:
        assert [interval[0] for interval in bigwig.intervals("chrB")] == list(range(11_930, 12_000))
        assert len(bigwig.intervals("chrA")) == 160


def linear_weights(inputs: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import torch

    weights = torch.load(inputs / "linear.pt", weights_only=True)
    return (
        weights["1.weight"].double().numpy().reshape(3, 4, LENGTH),
        weights["1.bias"].double().numpy(),
    )


def write_references(tmp_path: Path) -> dict[str, NDArray[np.float32]]:
    """One set for all as npz, a set for each input row as HDF5."""
    generator = np.random.default_rng(5)
    shared = one_hot(generator.integers(0, 4, (2, LENGTH)).astype(np.uint8)).astype(np.float32)
    own = one_hot(generator.integers(0, 4, (12, 2, LENGTH)).astype(np.uint8)).astype(np.float32)
    np.savez(tmp_path / "shared.npz", references=shared)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["references"] = own
    return {"shared.npz": np.broadcast_to(shared, own.shape), "own.h5": own}


@pytest.mark.parametrize(
    "kind",
    [
        "zeros",
        "uniform",
        "frequency:0.3,0.2,0.2,0.3",
        "shuffle",
        "dinucleotide-shuffle",
        "file:shared.npz",
        "file:own.h5",
    ],
)
def test_contributions_of_a_linear_model_are_its_weights_for_every_kind_of_reference(
    kind: str,
    linear: Attribute,
    inputs: Path,
    tmp_path: Path,
    simulated: SimulatedGenome,
    read_scores: Read,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    from_file = write_references(tmp_path)
    shuffled = "shuffle" in kind
    flags = ["-t", "index:1", "-t", "both=index:0,2", "-t", "contrast:2,0", "--order", "shuffle:1"]
    result = (
        linear(
            "-o",
            "run",
            *flags,
            "--references",
            kind,
            "--n-references",
            3 if shuffled else 2 if from_file else 1,
        )
        if kind.startswith("file:") or shuffled
        else linear("-o", "run", *flags, "--references", kind)
    )
    assert result.exit_code == 0, result.stderr
    weights, bias = linear_weights(inputs)
    codes = peak_codes(simulated)
    sequences = one_hot(codes).astype(np.float64)
    if kind.startswith("file:"):
        references = from_file[kind.removeprefix("file:")].astype(np.float64)
    elif shuffled:
        source = parse_references(kind, n_references=3, seed=0, window=LENGTH, n_input_rows=12)
        references = one_hot(source.draw_batch(codes, np.arange(12))).astype(np.float64)
    else:
        column = {"zeros": [0.0] * 4, "uniform": [0.25] * 4}.get(kind, [0.3, 0.2, 0.2, 0.3])
        references = np.broadcast_to(np.array(column)[:, None], (12, 1, 4, LENGTH))
    targets = {
        "index-1": (weights[1], bias[1]),
        "both": (weights[0] + weights[2], bias[0] + bias[2]),
        "contrast-2-0": (weights[2] - weights[0], bias[2] - bias[0]),
    }
    for name, (weight, offset) in targets.items():
        found = read_scores(tmp_path / f"run.{name}_scores.h5")
        rows = found["regions/input_row"]
        assert sorted(rows) == list(range(12)) != list(rows)
        share = np.einsum("nrbl,bl->nl", references, weight) / references.shape[1]
        hypothetical = (weight[None] - share[:, None])[rows]
        np.testing.assert_allclose(found["shap/seq"], hypothetical, atol=2e-6)
        np.testing.assert_allclose(found["projected_shap/seq"], hypothetical * sequences[rows], atol=2e-6)
        expected = (sequences[rows] * weight).sum(axis=(1, 2)) + offset
        np.testing.assert_allclose(found["qc/prediction"], expected, atol=1e-5)
        assert (tmp_path / f"run.{name}_scores.bw").is_file()


def test_targets_of_one_run_equal_runs_of_one_target(
    attribute: Attribute, tmp_path: Path, finished: Path, read_scores: Read
) -> None:
    result = attribute("-o", tmp_path / "run", "-t", "counts", "-t", "half=output:0/index:0@0-43")
    assert result.exit_code == 0, result.stderr
    together = read_scores(tmp_path / "run.counts_scores.h5")
    alone = read_scores(Path(f"{finished}.counts_scores.h5"))
    np.testing.assert_allclose(together["shap/seq"], alone["shap/seq"], atol=1e-7)
    half = read_scores(tmp_path / "run.half_scores.h5")
    assert str(half["attribute:target"]) == "output:0/index:0@0-43"
    assert half["qc/delta_error"].max() < 1e-4


SELECTIONS: dict[str, tuple[list[str], Callable[[Any], bool], Callable[[Any], Any], int | None]] = {
    "chroms": (["--chroms", "chrB"], lambda peak: peak.chrom == "chrB", lambda peak: peak.line, None),
    "limit": (["--limit", "3"], lambda peak: True, lambda peak: peak.line, 3),
    "signal": (["--order", "signal"], lambda peak: True, lambda peak: -peak.signal, None),
    "strongest": (["--order", "signal", "--limit", "2"], lambda peak: True, lambda peak: -peak.signal, 2),
    "exclude": (["--exclude", "{exclude}"], lambda peak: peak.summit != 4000, lambda peak: peak.line, None),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selection_chooses_and_orders_rows(
    name: str, attribute: Attribute, tmp_path: Path, simulated: SimulatedGenome
) -> None:
    flags, keep, key, limit = SELECTIONS[name]
    exclude = tmp_path / "exclude.bed"
    exclude.write_text("chrA\t4000\t4001\nchrB\t3990\t4010\n")
    result = attribute("-o", tmp_path / "run", *(flag.format(exclude=exclude) for flag in flags))
    assert result.exit_code == 0, result.stderr
    expected = sorted((peak for peak in simulated.peaks if keep(peak)), key=key)[:limit]
    assert [row[3] for row in bed_rows(tmp_path / "run")] == [peak.name for peak in expected]
    counts = facts(tmp_path / "run")["regions"]
    assert counts["in_file"] == 12 == counts["scored"] + sum(counts["left_out"].values())


def test_genome_order_is_that_of_the_fasta(attribute: Attribute, tmp_path: Path) -> None:
    regions = tmp_path / "mixed.bed"
    regions.write_text("chrB\t4000\t4020\tc\nchrA\t9000\t9020\tb\nchrA\t4000\t4020\ta\n")
    result = attribute("-o", tmp_path / "run", "--order", "genome", regions=regions)
    assert result.exit_code == 0, result.stderr
    assert [row[3] for row in bed_rows(tmp_path / "run")] == ["a", "b", "c"]


def test_midpoints_replace_summits_on_request(
    attribute: Attribute, tmp_path: Path, simulated: SimulatedGenome
) -> None:
    result = attribute("-o", tmp_path / "run", "--center", "midpoint", "--limit", "1")
    assert result.exit_code == 0, result.stderr
    row, peak = bed_rows(tmp_path / "run")[0], simulated.peaks[0]
    assert int(row[1]) + int(row[9]) == (peak.start + peak.end) // 2 != peak.summit


def test_regions_from_stdin_give_the_same_files(
    attribute: Attribute, inputs: Path, finished: Path, tmp_path: Path, read_scores: Read
) -> None:
    text = (inputs / "peaks.narrowPeak").read_bytes()
    result = attribute("-o", tmp_path / "run", regions="-", stdin=text)
    assert result.exit_code == 0, result.stderr
    piped, plain = (
        read_scores(Path(f"{prefix}.counts_scores.h5")) for prefix in (tmp_path / "run", finished)
    )
    assert piped.keys() == plain.keys()
    assert all(piped[name].tobytes() == plain[name].tobytes() for name in plain)
    bad = attribute("-o", tmp_path / "bad", regions="-", stdin=b"chrA\t5\t2\n")
    assert bad.exit_code == 3
    assert "stdin:1: start 5 is not before end 2" in bad.stderr
    empty = attribute("-o", tmp_path / "bad", regions="-", stdin=b"")
    assert empty.exit_code == 3
    assert "stdin: there are no regions" in empty.stderr


def test_sequences_of_a_fasta_are_scored_themselves(
    attribute: Attribute, tmp_path: Path, simulated: SimulatedGenome, finished: Path, read_scores: Read
) -> None:
    codes = peak_codes(simulated)
    write_fasta(tmp_path / "windows.fa", {f"s{row}": sequence for row, sequence in enumerate(codes)})
    result = attribute("-o", tmp_path / "run", "-f", tmp_path / "windows.fa", genome=None, regions=None)
    assert result.exit_code == 0, result.stderr
    assert not list(tmp_path.glob("*.bw"))
    ours = read_scores(tmp_path / "run.counts_scores.h5")
    theirs = read_scores(Path(f"{finished}.counts_scores.h5"))
    for name in ("raw/seq", "shap/seq", "qc/prediction"):
        assert ours[name].tobytes() == theirs[name].tobytes()
    assert ours["regions/chrom"].tolist() == [f"s{row}".encode() for row in range(12)]
    assert set(ours["regions/start"]) == {0}
    assert set(ours["regions/end"]) == {LENGTH}
    wrong = attribute(
        "-o",
        tmp_path / "wrong",
        "-f",
        _short_records(tmp_path / "short.fa", codes),
        genome=None,
        regions=None,
    )
    assert wrong.exit_code == 3
    assert "records have 90 bases, the model takes 100" in wrong.stderr


def _short_records(path: Path, codes: Codes) -> Path:
    path.write_text("".join(f">s{row}\n{decode(sequence[:90])}\n" for row, sequence in enumerate(codes)))
    return path
