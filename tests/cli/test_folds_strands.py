"""Several folds, both strands, the region's strand and errors over references, from the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from dlgenome.encoding import decode, encode, reverse_complement
from dlgenome.scores import ScoresFile
from dlgenome_cli.main import cli

LENGTH, FOLDS = 100, 3
SCORES = ("shap/seq", "projected_shap/seq")
Attribute = Callable[..., Result]
Datasets = dict[str, NDArray[Any]]
Read = Callable[[Path], Datasets]
Codes = NDArray[np.uint8]

ARGUMENTS: dict[str, Any] = {
    "n_filters": 6,
    "n_layers": 1,
    "n_outputs": 2,
    "first_kernel_size": 7,
    "profile_kernel_size": 5,
}


def save_bpnet(path: Path, seed: int, **changes: Any) -> Path:
    """A BPNet of random weights, two strands unless told otherwise."""
    import torch

    from dlgenome.model.architectures.bpnet import BPNet
    from dlgenome.model.safe_files import save_safetensors

    length = changes.pop("input_length", LENGTH)
    arguments = {**ARGUMENTS, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_safetensors(
            BPNet(**arguments), path, architecture="bpnet", arguments=arguments, input_length=length
        )
    return path


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of the folds of one model."""
    folder = tmp_path_factory.mktemp("folds")
    return [save_bpnet(folder / f"fold{seed}.safetensors", seed) for seed in range(FOLDS)]


@pytest.fixture(scope="module")
def run(attribute: Attribute) -> Callable[..., Path]:
    """Runs `dlgenome attribute` and returns its prefix; several models are folds."""

    def attribute_folds(prefix: Path, models: Sequence[Path], *arguments: object, **given: Any) -> Path:
        further = [word for model in models[1:] for word in ("-m", model)]
        result = attribute("-o", prefix, *further, *arguments, model=models[0], **given)
        assert result.exit_code == 0, result.stderr
        return prefix

    return attribute_folds


Run = Callable[..., Path]
FOLD_FLAGS = ("-t", "counts", "-t", "profile-chrombpnet", "--reference-se")
TARGETS = ("counts", "profile-chrombpnet")


def scores_of(prefix: Path, target: str = "counts") -> Path:
    return Path(f"{prefix}.{target}_scores.h5")


@pytest.fixture(scope="module")
def together(run: Run, folds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folds in one run, with everything that can be kept of them."""
    prefix = tmp_path_factory.mktemp("together") / "run"
    return run(prefix, folds, *FOLD_FLAGS, "--fold-sd", "--per-fold")


@pytest.fixture(scope="module")
def apart(run: Run, folds: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Each fold in a run of its own."""
    folder = tmp_path_factory.mktemp("apart")
    return [run(folder / f"fold{seed}", [path], *FOLD_FLAGS) for seed, path in enumerate(folds)]


def assert_same(first: Datasets, second: Datasets) -> None:
    """Every dataset and the identity, to the bit."""
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype, name
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize("target", TARGETS)
def test_folds_are_averaged_in_float32_in_the_order_given(
    target: str, together: Path, apart: list[Path], read_scores: Read
) -> None:
    mean = read_scores(scores_of(together, target))
    singles = [read_scores(scores_of(prefix, target)) for prefix in apart]
    for name in SCORES:
        total = singles[0][name].copy()
        for single in singles[1:]:
            total += single[name]
        np.testing.assert_array_equal(mean[name], total / np.float32(FOLDS), err_msg=name)
        assert np.abs(mean[name] - singles[0][name]).max() > 0.1 * np.abs(mean[name]).max()
    for name in ("prediction", "reference_prediction", "sum", "mean_abs_delta"):
        expected = np.mean([single[f"qc/{name}"] for single in singles], axis=0)
        np.testing.assert_allclose(mean[f"qc/{name}"], expected, rtol=1e-14, err_msg=name)
    assert mean["qc/delta_error"].max() < 1e-4
    deviation = np.std([single["projected_shap/seq"] for single in singles], axis=0, ddof=1, dtype=np.float64)
    np.testing.assert_array_equal(mean["fold_sd/seq"], deviation.astype(np.float32))


@pytest.mark.parametrize("target", TARGETS)
def test_the_files_of_each_fold_are_those_of_a_run_of_its_own(
    target: str, together: Path, apart: list[Path], read_scores: Read
) -> None:
    for number, alone in enumerate(apart, start=1):
        fold = together.with_name(f"{together.name}.fold-{number}")
        assert_same(read_scores(scores_of(fold, target)), read_scores(scores_of(alone, target)))
        for ending in (f"{target}_scores.bw", "interpreted_regions.bed", "skipped_regions.tsv"):
            assert Path(f"{fold}.{ending}").read_bytes() == Path(f"{alone}.{ending}").read_bytes(), ending


def test_folds_scored_apart_and_merged_are_the_one_run(
    together: Path, apart: list[Path], read_scores: Read, tmp_path: Path
) -> None:
    files = [scores_of(prefix, target) for target in TARGETS for prefix in apart]
    arguments = ["merge", "--mean", "--fold-sd", "-q", "-o", tmp_path / "run", *files]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    for target in TARGETS:
        merged, one = (read_scores(scores_of(prefix, target)) for prefix in (tmp_path / "run", together))
        assert_same(merged, one)
        for ending in (f"{target}_scores.bw", f"{target}_fold_sd.bw"):
            assert (tmp_path / f"run.{ending}").read_bytes() == Path(f"{together}.{ending}").read_bytes()


def test_the_deviation_is_a_track_of_its_own(together: Path) -> None:
    with ScoresFile(scores_of(together)) as scores:
        window = scores.window(0)
        expected = scores.extra("fold_sd", 0).sum(axis=0)
    with pyBigWig.open(f"{together}.counts_fold_sd.bw") as track:
        center = window.center
        assert track.values(window.chrom, center, center + 1)[0] == pytest.approx(
            float(expected[center - window.start])
        )


def test_listed_outputs_are_the_files_written(
    together: Path, folds: list[Path], attribute: Attribute
) -> None:
    further = [word for model in folds[1:] for word in ("-m", model)]
    flags = (*FOLD_FLAGS, "--fold-sd", "--per-fold", "--list-outputs")
    result = attribute("-o", together, *further, *flags, model=folds[0])
    assert sorted(result.stdout.split()) == sorted(map(str, together.parent.iterdir()))


def test_order_of_the_folds_is_part_of_the_identity_and_rounding_of_the_scores(
    run: Run, together: Path, folds: list[Path], tmp_path: Path, read_scores: Read
) -> None:
    turned = read_scores(scores_of(run(tmp_path / "run", folds[::-1], *FOLD_FLAGS)))
    one = read_scores(scores_of(together))
    digests = str(one["attribute:checkpoint_sha256"]).split(",")
    assert str(turned["attribute:checkpoint_sha256"]).split(",") == digests[::-1]
    np.testing.assert_allclose(turned["shap/seq"], one["shap/seq"], atol=1e-6 * np.abs(one["shap/seq"]).max())


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        ({"input_length": 120}, (), "takes 120 bases and"),
        ({"n_outputs": 1}, ("-t", "profile-bpnet"), "has other outputs than"),
        ({"profile_kernel_size": 9}, ("-t", "profile-bpnet"), "has other outputs than"),
    ],
)
def test_a_fold_that_is_not_like_the_others_is_refused_before_the_work(
    changes: dict[str, Any],
    flags: tuple[str, ...],
    words: str,
    folds: list[Path],
    attribute: Attribute,
    tmp_path: Path,
) -> None:
    other = save_bpnet(tmp_path / "other.safetensors", 9, **changes)
    folder = tmp_path / "out"
    folder.mkdir()
    result = attribute("-o", folder / "run", "-m", other, *flags, model=folds[0])
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr
    assert "other.safetensors" in result.stderr
    assert "folds must be alike" in result.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize("flag", ["--fold-sd", "--per-fold"])
def test_one_fold_has_no_deviation_and_no_files_of_folds(
    flag: str, attribute: Attribute, tmp_path: Path
) -> None:
    result = attribute("-o", tmp_path / "run", flag)
    assert result.exit_code == 2
    assert "need several folds: repeat -m" in result.stderr
    assert not list(tmp_path.iterdir())


def write_fasta(path: Path, sequences: Codes) -> Path:
    path.write_text("".join(f">s{row}\n{decode(codes)}\n" for row, codes in enumerate(sequences)))
    return path


def one_hot(codes: Codes) -> NDArray[np.float32]:
    return np.eye(5, 4, dtype=np.float32)[codes].swapaxes(-1, -2)


def write_references(path: Path, references: Codes) -> str:
    """(rows, references, length) codes as what `--references` takes."""
    np.savez(path, references=one_hot(references))
    return f"file:{path}"


@pytest.fixture(scope="module")
def sequences() -> Codes:
    found: Codes = np.random.default_rng(8).integers(0, 4, (4, LENGTH)).astype(np.uint8)
    found[1, 20:25] = 4
    return found


@pytest.fixture(scope="module")
def references(sequences: Codes) -> Codes:
    found: Codes = np.random.default_rng(9).integers(0, 4, (4, 3, LENGTH)).astype(np.uint8)
    found[np.repeat(sequences[:, np.newaxis] == 4, 3, axis=1)] = 4
    return found


def of_sequences(run: Run, folder: Path, name: str, model: Path, codes: Codes, *flags: object) -> Path:
    """A run on sequences themselves, every step of one shape."""
    fasta = write_fasta(folder / f"{name}.fa", codes)
    return run(folder / name, [model], "-f", fasta, *flags, genome=None, regions=None)


def test_reverse_complement_is_the_mean_of_two_plain_runs(
    run: Run, folds: list[Path], sequences: Codes, references: Codes, tmp_path: Path, read_scores: Read
) -> None:
    given = write_references(tmp_path / "forward.npz", references)
    turned = write_references(tmp_path / "turned.npz", reverse_complement(references))
    flags = ("--n-references", 3, "-t", "counts", "-t", "profile-bpnetlite", "--references")
    model = folds[0]
    both = of_sequences(run, tmp_path, "both", model, sequences, "--reverse-complement", *flags, given)
    forward = of_sequences(run, tmp_path, "one", model, sequences, *flags, given)
    backward = of_sequences(run, tmp_path, "two", model, reverse_complement(sequences), *flags, turned)
    for target in ("counts", "profile-bpnetlite"):
        mean, one, two = (read_scores(scores_of(prefix, target)) for prefix in (both, forward, backward))
        for name in SCORES:
            expected = (one[name] + two[name][:, ::-1, ::-1]) / 2
            np.testing.assert_array_equal(mean[name], expected, err_msg=name)
            assert np.abs(mean[name] - one[name]).max() > 0.05 * np.abs(mean[name]).max()
        for name in ("prediction", "reference_prediction", "sum", "mean_abs_delta"):
            expected = (one[f"qc/{name}"] + two[f"qc/{name}"]) / 2
            np.testing.assert_array_equal(mean[f"qc/{name}"], expected, err_msg=name)
        np.testing.assert_array_equal(mean["raw/seq"], one["raw/seq"])
        assert str(mean["attribute:strands"]) == "both"
        assert mean["qc/delta_error"].max() < 1e-5


def test_a_symmetric_model_has_the_same_scores_on_both_strands(
    run: Run, inputs: Path, tmp_path: Path, read_scores: Read
) -> None:
    """A dense model whose weights read the same on the other strand, against zeros."""
    import torch

    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(3, 4, LENGTH, generator=generator)
    weights = (weights + weights.flip(1, 2)) / 2
    torch.save({"1.weight": weights.flatten(1), "1.bias": torch.zeros(3)}, tmp_path / "symmetric.pt")
    flags = ("--architecture", f"{inputs / 'linear.py'}:linear", "--window", LENGTH, "-t", "index:0")
    found = [
        read_scores(scores_of(run(tmp_path / name, [tmp_path / "symmetric.pt"], *flags, *further), "index-0"))
        for name, further in (("plain", ()), ("both", ("--reverse-complement",)))
    ]
    for name in SCORES:
        np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-6)


@pytest.fixture(scope="module")
def stranded_bed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated peaks on +, -, . in turn."""
    path = tmp_path_factory.mktemp("stranded") / "peaks.narrowPeak"
    lines = []
    for row, line in enumerate((inputs / "peaks.narrowPeak").read_text().splitlines()):
        columns = line.split("\t")
        lines.append("\t".join([*columns[:5], "+-."[row % 3], *columns[6:]]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("further", [(), ("--reverse-complement",)])
def test_stranded_explains_minus_strand_regions_as_their_reverse_complement(
    further: tuple[str, ...],
    run: Run,
    folds: list[Path],
    stranded_bed: Path,
    tmp_path: Path,
    read_scores: Read,
) -> None:
    flags = ("-t", "profile-bpnet", "--reference-se", *further)
    plain, stranded = (
        run(tmp_path / name, [folds[0]], *flags, *more, regions=stranded_bed)
        for name, more in (("plain", ()), ("stranded", ("--stranded",)))
    )
    before, after = (read_scores(scores_of(prefix, "profile-bpnet")) for prefix in (plain, stranded))
    minus = after["regions/strand"] == b"-"
    assert 0 < minus.sum() < len(minus)
    codes: Codes = np.where(before["raw/seq"].any(1), before["raw/seq"].argmax(1), 4).astype(np.uint8)
    turned = of_sequences(run, tmp_path, "turned", folds[0], reverse_complement(codes[minus]), *flags)
    expected = read_scores(scores_of(turned, "profile-bpnet"))
    np.testing.assert_array_equal(after["raw/seq"], before["raw/seq"])
    for name in (*SCORES, "reference_se/seq"):
        np.testing.assert_array_equal(after[name][~minus], before[name][~minus], err_msg=name)
        np.testing.assert_array_equal(after[name][minus], expected[name][:, ::-1, ::-1], err_msg=name)
        assert not np.array_equal(after[name][minus], before[name][minus])
    np.testing.assert_array_equal(after["qc/prediction"][minus], expected["qc/prediction"])
    assert not after["projected_shap/seq"][after["raw/seq"] == 0].any()
    assert str(after["attribute:strands"]) == ("both" if further else "forward") + ", stranded"


def test_reference_error_is_that_over_runs_with_one_reference_each(
    run: Run,
    folds: list[Path],
    sequences: Codes,
    references: Codes,
    tmp_path: Path,
    read_scores: Read,
) -> None:
    model = folds[0]
    given = write_references(tmp_path / "all.npz", references)
    flags = ("--n-references", 3, "--reference-se", "--reverse-complement", "--references", given)
    found = read_scores(scores_of(of_sequences(run, tmp_path, "all", model, sequences, *flags)))
    singles = []
    for index in range(3):
        given = write_references(tmp_path / f"{index}.npz", references[:, [index]])
        one = ("--n-references", 1, "--reverse-complement", "--references", given)
        prefix = of_sequences(run, tmp_path, f"single{index}", model, sequences, *one)
        singles.append(read_scores(scores_of(prefix))["projected_shap/seq"].astype(np.float64))
    expected = np.std(singles, axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found["reference_se/seq"], expected, atol=1e-5 * expected.max())
    assert not found["reference_se/seq"][found["raw/seq"] == 0].any()


def test_adaptive_references_stop_at_the_error_and_say_how_many_there_were(
    run: Run, folds: list[Path], apart: list[Path], tmp_path: Path, read_scores: Read
) -> None:
    """The same regions in another order and other steps get the same rounds."""
    most, size = 5, 3
    error = 0.2 * float(np.median(read_scores(scores_of(apart[0]))["qc/mean_abs_delta"]))
    flags = ("--adaptive-references", error, "--min-rounds", 2, "--max-rounds", most)
    found = read_scores(scores_of(run(tmp_path / "run", folds[:1], *flags)))
    counts = found["qc/n_references"]
    assert set(counts.tolist()) <= {size * rounds for rounds in range(2, most + 1)}
    assert len(set(counts.tolist())) > 1, counts
    for row in (int(counts.argmin()), int(counts.argmax())):
        count = int(counts[row])
        flags_of_all = ("--n-references", count, "--batch-size", count)
        plain = read_scores(scores_of(run(tmp_path / f"plain{row}", folds[:1], *flags_of_all)))
        largest = np.abs(plain["shap/seq"][row]).max()
        np.testing.assert_allclose(found["shap/seq"][row], plain["shap/seq"][row], atol=2e-6 * largest)
    prefix = run(tmp_path / "turned", folds[:1], *flags, "--order", "shuffle:4")
    turned = read_scores(scores_of(prefix))
    rows = turned["regions/input_row"]
    for name in (*SCORES, "qc/n_references", "qc/sum"):
        np.testing.assert_array_equal(turned[name], found[name][rows], err_msg=name)
    other = run(tmp_path / "steps", folds[:1], *flags, "--batch-size", 15)
    np.testing.assert_array_equal(read_scores(scores_of(other))["qc/n_references"], counts)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--references", "zeros", "--adaptive-references", 0.1), "zeros has no more"),
        (("--references", "file:{file}", "--adaptive-references", 0.1), "references.npz has no more"),
        (("--references", "zeros", "--reference-se"), "--reference-se needs two references or more"),
        (("--n-references", 1, "--reference-se"), "--reference-se needs two references or more"),
        (("--adaptive-references", 0), "takes a standard error above 0"),
        (("--adaptive-references", "nan"), "takes a standard error above 0"),
        (("--min-rounds", 4, "--max-rounds", 3), "--max-rounds 3 is below --min-rounds 4"),
    ],
)
def test_references_that_cannot_do_this_are_refused(
    flags: tuple[object, ...],
    words: str,
    folds: list[Path],
    references: Codes,
    attribute: Attribute,
    tmp_path: Path,
) -> None:
    write_references(tmp_path / "references.npz", references[0])
    words_given = [str(flag).replace("{file}", str(tmp_path / "references.npz")) for flag in flags]
    folder = tmp_path / "out"
    folder.mkdir()
    result = attribute("-o", folder / "run", "--n-references", 3, *words_given, model=folds[0])
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr
    assert not list(folder.iterdir())


def test_the_chrombpnet_preset_writes_the_files_of_chrombpnet(
    run: Run, tmp_path: Path, read_scores: Read
) -> None:
    model = save_bpnet(tmp_path / "model.safetensors", 3, n_outputs=1)
    folder = tmp_path / "out"
    folder.mkdir()
    run(folder / "P", [model], "--config", "chrombpnet")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *(f"P.{head}_scores.{ending}" for head in ("counts", "profile") for ending in ("h5", "bw")),
        *("P.interpreted_regions.bed", "P.skipped_regions.tsv", "P.run.json"),
    }
    profile = read_scores(folder / "P.profile_scores.h5")
    assert profile["shap/seq"].dtype == np.float16
    assert str(profile["attribute:target"]) == "profile-chrombpnet"
    assert profile["qc/delta_error"].max() < 1e-3


def test_encoded_letters_survive_the_helpers() -> None:
    """The twins above rely on this pair."""
    assert decode(reverse_complement(encode("AACGN"))) == "NCGTT"


def test_the_same_checkpoint_twice_is_refused_before_any_work(
    attribute: Attribute, folds: list[Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(folds[0].read_bytes())
    for again in (folds[0], copy):
        result = attribute(
            "-o", tmp_path / "run", "-t", "counts", "-m", folds[1], "-m", again, model=folds[0]
        )
        assert result.exit_code == 2
        expected = f"-m {folds[0]} and -m {again} are the same checkpoint; give each fold once."
        assert result.stderr == f"Error: {expected}\n"
        assert not list(tmp_path.glob("run*"))
