"""Makes damaged files and reads them, in a process of its own with a limit on memory.

Reads one JSON request a line from stdin and answers each with one on stdout: ``{"kind": K, "seed": N}``
damages a valid file of the kind K, the same one for the same N, and reads it; where N is not above 0, it
stays whole. ``{"kind": K, "path": P}`` reads a file as it is. The tests beside it start this program.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from Bio import bgzf
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from dlgenome.config import RunConfig, settings
from dlgenome.config_files import load_yaml, preset_path, presets
from dlgenome.errors import DlgenomeError
from dlgenome.guards import hdf5
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.checkpoint import LoadedModel, load_model
from dlgenome.model.exporting import exported_program, save_exported
from dlgenome.model.inputs import InputForm, adapt
from dlgenome.model.safe_files import save_program
from dlgenome.model.targets import check_targets
from dlgenome.references.file import open_references
from dlgenome.regions.bed import read_regions
from dlgenome.regions.fasta import Genome, regions_of_records
from dlgenome.scores import ScoresFile
from dlgenome_cli.main import cli

MEMORY = 2**30
"""Bytes of address space beyond what the process has when it begins to read."""
KERAS_FILES = Path(__file__).parents[1] / "model" / "keras" / "files"
WINDOW, N_ROWS = 12, 5


# Valid files


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(4, 3, 5), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).eval()


def bed_files() -> Iterator[bytes]:
    rows = [f"chr{n % 3}\t{n * 50}\t{n * 50 + 40}\tpeak{n}\t{n}\t+-."[:-2] for n in range(40)]
    yield "\n".join(rows).encode()
    yield b"track name=x\n#comment\n" + b"".join(b"chr1\t%d\t%d\r\n" % (n, n + 9) for n in range(30))
    yield b"".join(b"chr1\t%d\t%d\tp\t5\t.\t1.5\t2\t3\t4\n" % (n, n + 9) for n in range(30))
    yield b"".join(b"chr1\t%d\t%d\tp\t5\t-\t1\t2\t0,0,0\t2\t3,4\t0,5\n" % (n, n + 9) for n in range(30))


def fasta_files() -> Iterator[bytes]:
    rng = random.Random(1)
    for width, count, ending in ((10, 3, "\n"), (60, 2, "\r\n"), (1000, 5, "\n")):
        text = ""
        for record in range(count):
            bases = "".join(rng.choices("ACGTNacgtRU", k=137 if width != 1000 else 40))
            lines = [bases[start : start + width] for start in range(0, len(bases), width)]
            text += f">chr{record} words{ending}" + ending.join(lines) + ending
        yield text.encode()


def bgzipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    writer = bgzf.BgzfWriter(fileobj=stream, mode="wb")  # type: ignore[no-untyped-call]
    writer.write(content)  # type: ignore[no-untyped-call]
    writer.flush()  # type: ignore[no-untyped-call]
    writer._handle.write(bgzf._bgzf_eof)
    return stream.getvalue()


def index_files() -> Iterator[bytes]:
    yield b"chr0\t137\t12\t10\t11\nchr1\t137\t175\t10\t11\nchr2\t137\t338\t10\t11\n"


def yaml_files() -> Iterator[bytes]:
    yield from (preset_path(name).read_bytes() for name in presets())
    yield b"target: [counts, 'a=index:0,1@2-5']\nchroms: chr1,chr2\nwindow: 100\nreferences: zeros\nseed: 7\n"


def run_json_files() -> Iterator[bytes]:
    config = RunConfig(
        model=Path("m.pt"), output=Path("out"), genome=Path("g.fa"), regions="-", references="file:r.h5"
    )
    facts = {
        "settings": settings(config),
        "request": {"device": "cpu"},
        "identity": {"batch_size": 60},
        "threads": 2,
    }
    yield json.dumps({**facts, "working_directory": "."}).encode()


def hdf5_bytes(fill: Callable[[h5py.File], None]) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        fill(file)
    return stream.getvalue()


def scores_files() -> Iterator[bytes]:
    rng = np.random.default_rng(0)

    def fill(file: h5py.File) -> None:
        raw = np.eye(4, dtype=np.int8)[rng.integers(0, 4, (N_ROWS, WINDOW))].transpose(0, 2, 1)
        shape = raw.shape
        file.create_dataset("raw/seq", data=raw, chunks=(2, 4, WINDOW), compression=1, shuffle=True)
        for name in ("shap", "projected_shap", "fold_sd"):
            values = rng.normal(size=shape).astype(np.float32)
            file.create_dataset(f"{name}/seq", data=values, chunks=(2, 4, WINDOW), compression=1)
        for name in ("chrom", "name", "strand"):
            file[f"regions/{name}"] = np.array([b"chr1", b"+", b"-", b"a", b"b"])
        for name in ("start", "end", "summit", "input_row"):
            file[f"regions/{name}"] = np.arange(N_ROWS, dtype=np.int64)
        for name in ("prediction", "reference_prediction", "sum", "mean_abs_delta", "delta_error"):
            file[f"qc/{name}"] = rng.normal(size=N_ROWS)
        file["qc/n_references"] = np.full(N_ROWS, 20, np.int32)
        file["qc/crc32"] = np.arange(N_ROWS, dtype=np.uint32)
        file["genome/chrom"], file["genome/length"] = np.array([b"chr1"]), np.array([900])
        file.attrs.update({"format_version": 1, "target_name": "counts", "seed": 4, "host": "here", "x": 0.5})

    yield hdf5_bytes(fill)


def references_files() -> Iterator[bytes]:
    frequencies = np.full((N_ROWS, 3, 4, WINDOW), 0.25)
    for values in (frequencies, frequencies[0]):
        yield hdf5_bytes(lambda file, values=values: file.update({"references": values}))  # type: ignore[misc]
    yield hdf5_bytes(
        lambda file: file.create_dataset("references", data=frequencies, chunks=True, compression="gzip")
    )


def npz_files() -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, references=np.full((3, 4, WINDOW), 0.25), other=np.arange(3))
        yield stream.getvalue()


def npy_files() -> Iterator[bytes]:
    for values in (np.zeros((2, 5), np.float32), np.arange(4), np.asfortranarray(np.ones((3, 3)))):
        stream = io.BytesIO()
        np.save(stream, values)
        yield stream.getvalue()


def saved(value: Any, *, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def state_dicts() -> Iterator[Any]:
    state = BPNet(n_filters=4, n_layers=2).state_dict()
    yield state
    yield {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3}
    yield {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "hyper_parameters": {"n_filters": 4, "lr": 0.1, "nested": {"a": [1, 2.5, None, True]}},
        "callbacks": {"x": {"best": torch.tensor(1.0)}},
    }


def zip_files() -> Iterator[bytes]:
    yield from map(saved, state_dicts())
    yield saved(bpnetlite_model())


def bpnetlite_model() -> nn.Module:
    """An object that pickles as bpnet-lite's BPNet does."""
    from types import ModuleType

    network = BPNet(n_filters=4, n_layers=2)
    kind = type("BPNet", (nn.Module,), {"__module__": "bpnetlite.bpnet", "__qualname__": "BPNet"})
    module = ModuleType("bpnetlite.bpnet")
    setattr(module, "BPNet", kind)  # noqa: B010 - mypy knows no such attribute
    sys.modules |= {"bpnetlite": ModuleType("bpnetlite"), "bpnetlite.bpnet": module}
    made = kind()
    for name in ("iconv", "irelu", "rconvs", "rrelus", "fconv", "linear"):
        setattr(made, name, getattr(network, name))
    made.trimming = 50
    network_like: nn.Module = made
    return network_like


def legacy_files() -> Iterator[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from (saved(value, zipped=False) for value in state_dicts())


def safetensors_files(folder: Path) -> Iterator[bytes]:
    arguments = {"n_filters": 4, "n_layers": 2, "input_length": 2114}
    metadata = {"architecture": "bpnet", "arguments": json.dumps(arguments), "targets": '["counts"]'}
    save_file(dict(BPNet(n_filters=4, n_layers=2).state_dict()), folder / "made", metadata)
    yield (folder / "made").read_bytes()
    program, tensors = exported_program(small_network(), 20)
    save_program(program, tensors, folder / "made", title="a network of one's own", targets=["index:0"])
    yield (folder / "made").read_bytes()


def exported_files(folder: Path) -> Iterator[bytes]:
    save_exported(small_network(), folder / "made", length=20, description={"targets": ["index:0"]})
    yield (folder / "made").read_bytes()


def keras_files(ending: str) -> Iterator[bytes]:
    for path in sorted(KERAS_FILES.glob(f"*{ending}.gz")):
        content = gzip.decompress(path.read_bytes())
        if len(content) < 200_000:
            yield content


# Damage

NUMBERS = [
    0,
    1,
    2,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**32 - 1,
    10**12,
    2**62,
    2**63 - 1,
    2**64 - 1,
]
WORDS = [
    "", "-1", "0", "1e400", "nan", "inf", "0x10", "1_0", "2147483648", "99999999999999999999", "chr1", "\x00",
    "\r", "\n", "\t", "#", ">", "é", "\ufeff", "\U0001f600", "a" * 5000, "1" * 5000, "[" * 3000, "{a: ",
    "&a ", "*a", "!!python/object/apply:os.system ['true']", "<<: *a", "'", '"', "---", ": ", "- ", "%s%n",
    "track", "browser", "../../etc/passwd", "x.py:run", "file:/dev/zero", "fasta:/etc/passwd", "true", "~",
]  # fmt: skip
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    10**9,
    10**30,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "a" * 2000,
    [],
    {},
    [[]],
]


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        place = rng.randrange(len(made)) if made else 0
        size = rng.choice([1, 2, 4, 8, 64, 1000])
        match rng.randrange(8):
            case 0 | 1:
                made[place : place + 1] = bytes([rng.randrange(256)])
            case 2:
                number, width = rng.choice(NUMBERS), rng.choice([2, 4, 8])
                made[place : place + width] = (number % 256**width).to_bytes(
                    width, rng.choice(["little", "big"])
                )
            case 3:
                del made[place : place + size]
            case 4:
                made[place:place] = rng.randbytes(size)
            case 5:
                other = rng.randrange(len(made)) if made else 0
                made[place : place + size] = made[other : other + size]
            case 6:
                made[place:place] = rng.choice(WORDS).encode()
            case 7:
                del made[place:]
    return bytes(made)


def damage_text(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return damage_bytes(content, rng)
    lines = content.split(b"\n")
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(lines))
        separator = rng.choice([b"\t", b" ", b":"])
        fields = lines[place].split(separator)
        match rng.randrange(6):
            case 0 | 1 | 2:
                fields[rng.randrange(len(fields))] = rng.choice(WORDS).encode()
            case 3:
                fields.insert(rng.randrange(len(fields) + 1), rng.choice(WORDS).encode())
            case 4:
                del fields[rng.randrange(len(fields))]
            case 5:
                lines.insert(place, lines[rng.randrange(len(lines))])
        lines[place] = separator.join(fields)
    return b"\n".join(lines)


def damage_json(value: Any, rng: random.Random) -> Any:
    """The value with one part somewhere replaced, left out, repeated or put around itself."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        if rng.random() < 0.1:
            del value[key]
        elif isinstance(value, list) and rng.random() < 0.1:
            value += [value[key]] * rng.choice([1, 3, 300])
        else:
            value[key] = damage_json(value[key], rng)
        return value
    if isinstance(value, int | float) and rng.random() < 0.6:
        return rng.choice([*NUMBERS, -1, value + 1, -value, value * 2, 0.5])
    return rng.choice([*VALUES, [value] * 3, {"a": value}, str(value), [value]])


def damage_json_text(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return damage_text(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice([1, 1, 2])):
        value = damage_json(value, rng)
    return json.dumps(value).encode()


def damage_zip(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return damage_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = [(name, source.read(name)) for name in source.namelist()]
    place = rng.randrange(len(members))
    name, inside = members[place]
    match rng.randrange(7):
        case 0 | 1 | 2:
            important = [n for n, (name, _) in enumerate(members) if name.endswith((".pkl", ".json", ".h5"))]
            place = rng.choice(important or [place])
            name, inside = members[place]
            members[place] = name, _damage_member(name, inside, rng)
        case 3:
            del members[place]
        case 4:
            members[place] = rng.choice(members)[0], inside
        case 5:
            members[place] = name, rng.choice(members)[1]
        case 6:
            members[place] = name.replace("/", rng.choice(["", "//", "/../", "\\"])), inside
    stream, method = (
        io.BytesIO(),
        rng.choice([zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]),
    )
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as target:
        warnings.simplefilter("ignore")
        for name, inside in members:
            target.writestr(name, inside)
    return stream.getvalue()


def _damage_member(name: str, content: bytes, rng: random.Random) -> bytes:
    if name.endswith(".json"):
        return damage_json_text(content, rng)
    if name.endswith(".h5"):
        return damage_hdf5(content, rng)
    return damage_bytes(content, rng)


def damage_hdf5(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return damage_bytes(content, rng)
    stream = io.BytesIO(content)
    with h5py.File(stream, "r+") as file:
        names = [""]
        file.visit(names.append)
        for _ in range(rng.choice([1, 1, 2])):
            name = rng.choice(names)
            item = file[name] if name else file
            if item.attrs and rng.random() < 0.4:
                _damage_attribute(item, rng.choice(list(item.attrs)), rng)
            elif name and rng.random() < 0.3:
                del file[name]
                names = [other for other in names if not other.startswith(name)]
            elif isinstance(item, h5py.Dataset):
                _damage_dataset(file, name, item, rng)
    return stream.getvalue()


def _damage_attribute(item: Any, name: str, rng: random.Random) -> None:
    value = item.attrs[name]
    if isinstance(value, str) and value.startswith("{"):
        item.attrs[name] = damage_json_text(value.encode(), rng).decode("utf-8", "replace")[:60_000]
        return
    item.attrs[name] = rng.choice(
        [
            -1,
            2**40,
            1.5,
            "",
            "a/b/../c",
            b"\xff\xfe",
            np.arange(3),
            np.array([b"x", b"y"]),
            h5py.Empty("f4"),
            [1.0],
        ]
    )


def _damage_dataset(file: h5py.File, name: str, item: h5py.Dataset, rng: random.Random) -> None:
    shape = tuple(rng.choice([size, size, size + 1, 0, 1, 10**6, 10**12]) for size in item.shape or ())
    kind = rng.choice([item.dtype, item.dtype, "f2", "i8", "S3", "c8", h5py.string_dtype(), "V8", "f8"])
    settings = {"compression": "gzip", "chunks": True} if shape and min(shape) and rng.random() < 0.5 else {}
    del file[name]
    try:
        file.create_dataset(name, shape=shape, dtype=kind, **settings)
    except (OSError, TypeError, ValueError):
        file[name] = "words"


def damage_safetensors(content: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return damage_bytes(content, rng)
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    for key in ("arguments", "targets", "program", "outputs"):
        if key in header["__metadata__"] and rng.random() < 0.3:
            header["__metadata__"][key] = damage_json_text(header["__metadata__"][key].encode(), rng).decode(
                "utf-8", "replace"
            )
    if rng.random() < 0.7:
        header = damage_json(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def damage_packed(pack: Callable[[bytes], bytes]) -> Callable[[bytes, random.Random], bytes]:
    def damage(content: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return damage_bytes(pack(content), rng)
        return pack(damage_text(content, rng))

    return damage


# Readers, which go as far as the commands do before they compute


def read_bed(path: Path) -> None:
    list(read_regions(path))


def read_fasta(path: Path) -> None:
    with Genome(path) as genome:
        assert genome.digest
        for contig in genome.contigs[:20]:
            genome.fetch(contig.name, -5, min(contig.length, 500) + 5)
        regions_of_records(genome)


def read_index(path: Path) -> None:
    genome = path.with_name("indexed.fa")
    genome.write_bytes(next(fasta_files()))
    index = path.with_name("indexed.fa.fai")
    index.write_bytes(path.read_bytes())
    later = genome.stat().st_mtime + 10
    os.utime(index, (later, later))
    read_fasta(genome)


def read_yaml(path: Path) -> None:
    load_yaml(path)
    flags = ["-m", "none.pt", "-g", "none.fa", "-r", "none.bed", "-o", "none", "--list-outputs"]
    _invoke("attribute", "--config", str(path), *flags)


def read_run_json(path: Path) -> None:
    _invoke("rerun", str(path), "-r", "now.bed", "-o", str(path.with_name("none")), "--list-outputs")


def _invoke(*words: str) -> None:
    done = CliRunner().invoke(cli, words)
    if done.exit_code in (2, 3):
        raise DlgenomeError(done.output.strip().rpartition("\n")[2][:500])  # values of flags are repeated
    if done.exit_code != 0:
        raise RuntimeError(f"exit {done.exit_code}: {done.output}") from done.exception


def read_scores(path: Path) -> None:
    with ScoresFile(path) as scores:
        assert isinstance(scores.identity, dict)
        assert isinstance(scores.contigs, tuple)
        list(scores.windows())
        for rows in [*scores.pieces(), slice(0, 2)]:
            scores.scored(rows)


def read_references(path: Path) -> None:
    source = open_references(path, n_references=None, window=WINDOW, n_input_rows=N_ROWS)
    try:
        for row in range(N_ROWS):
            source.draw(np.zeros(WINDOW, np.uint8), row)
    finally:
        source.close()


def read_npy(path: Path) -> None:
    loaded = LoadedModel(nn.Identity(), "test", {}, 4, "0" * 64, 0, "state-dict", ())
    adapt(loaded, InputForm(layout="4xL", extra=(str(path),)), 4)


def read_model(path: Path, **flags: Any) -> None:
    loaded = load_model(path, **flags)
    length = loaded.input_length or 60
    if length <= 2**14:
        check_targets(adapt(loaded, InputForm(), length).module, (), length)


def read_keras_json(path: Path) -> None:
    weights = path.with_name("weights.h5")
    weights.write_bytes(gzip.decompress((KERAS_FILES / "twice.keras3.weights.h5.gz").read_bytes()))
    description = path.with_name("description.json")
    description.write_bytes(path.read_bytes())
    read_model(weights, architecture=str(description))


Damage = Callable[[bytes, random.Random], bytes]
KINDS: dict[str, tuple[Callable[[Path], Iterator[bytes]], Damage, Callable[[Path], None]]] = {
    "bed": (lambda _: bed_files(), damage_text, read_bed),
    "bed.gz": (lambda _: bed_files(), damage_packed(gzip.compress), read_bed),
    "fasta": (lambda _: fasta_files(), damage_text, read_fasta),
    "fasta.bgz": (lambda _: fasta_files(), damage_packed(bgzipped), read_fasta),
    "fai": (lambda _: index_files(), damage_text, read_index),
    "yaml": (lambda _: yaml_files(), damage_text, read_yaml),
    "run.json": (lambda _: run_json_files(), damage_json_text, read_run_json),
    "scores.h5": (lambda _: scores_files(), damage_hdf5, read_scores),
    "references.h5": (lambda _: references_files(), damage_hdf5, read_references),
    "references.npz": (lambda _: npz_files(), damage_zip, read_references),
    "npy": (lambda _: npy_files(), damage_bytes, read_npy),
    "torch zip": (lambda _: zip_files(), damage_zip, read_model),
    "torch legacy": (lambda _: legacy_files(), damage_bytes, read_model),
    "safetensors": (safetensors_files, damage_safetensors, read_model),
    "pt2": (exported_files, damage_zip, read_model),
    "keras.h5": (lambda _: keras_files(".h5"), damage_hdf5, read_model),
    "keras zip": (lambda _: keras_files(".keras"), damage_zip, read_model),
    "keras json": (lambda _: keras_files("twice.keras3.json"), damage_json_text, read_keras_json),
}


# What must not be, so that it is known to be seen


def _fill() -> None:
    assert len(b"\1" * (600 * 2**20))


def _fail() -> None:
    raise ValueError("a bug")


def _talk() -> None:
    raise DlgenomeError("two\nlines")


TRIALS: dict[str, Callable[[], None]] = {
    "fills the memory": _fill,
    "asks for too much": lambda: bytearray(8 * 2**30).clear(),
    "fails": _fail,
    "says too much": _talk,
    "hangs": lambda: time.sleep(3600),
}


# The process


class Reader:
    """Valid files, made when they are first needed, and what came of reading damaged ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.valid: dict[str, list[bytes]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What came of a request, its time and the memory that it took beyond what there was before."""
        kind = request["kind"]
        if kind == "trial":
            return self._answer(TRIALS[request["path"]], self.folder)
        path = Path(request["path"]) if "path" in request else self._damaged(kind, request["seed"])
        return self._answer(lambda: KINDS[kind][2](path), path)

    def _answer(self, read: Callable[[], None], path: Path) -> dict[str, Any]:
        before, started = _reset_peak(), time.monotonic()
        outcome, error = _outcome(read)
        return {
            "outcome": outcome,
            "error": error,
            "seconds": time.monotonic() - started,
            "memory": _peak() - before,
            "path": str(path),
        }

    def _damaged(self, kind: str, seed: int) -> Path:
        make, damage, _ = KINDS[kind]
        if kind not in self.valid:
            self.valid[kind] = list(make(self.folder))
        rng = random.Random(f"{kind} {seed}")
        content = rng.choice(self.valid[kind]) if seed > 0 else self.valid[kind][seed % len(self.valid[kind])]
        path = self.folder / f"damaged.{kind.replace(' ', '.')}"
        for index in (path.with_name(path.name + ending) for ending in (".fai", ".gzi")):
            index.unlink(missing_ok=True)
        path.write_bytes(damage(content, rng) if seed > 0 else content)
        return path


def _outcome(read: Callable[[], None]) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except DlgenomeError as error:
        message = str(error)
        return ("refused" if "\n" not in message and len(message) < 1000 else "wordy"), message
    except BaseException as error:
        import traceback

        return "bug", "".join(traceback.format_exception(error))
    return "read", ""


def _reset_peak() -> int:
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123 - pathlib knows no such files
        file.write("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def main() -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(1)
    hdf5.CPU_SECONDS = 1.0
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    reader = Reader(Path(sys.argv[1]))
    read_model(_first_model(reader))
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + MEMORY, resource.RLIM_INFINITY))
    print(json.dumps({"kinds": list(KINDS)}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(reader.answer(json.loads(line))), file=answers, flush=True)


def _first_model(reader: Reader) -> Path:
    """Whatever is loaded when it is first needed, loaded before memory is measured."""
    return reader._damaged("pt2", 0)


if __name__ == "__main__":
    main()
