"""Where the files of a run go, and the checks that come before any work is done.

Everything is written inside ``PREFIX.partial/`` and renamed to its final name when it is complete;
``run.json`` comes last and means that the run is finished.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from dlgenome.errors import Interrupted, UsageError

logger = logging.getLogger(__name__)

FORMATS = frozenset({"h5", "bigwig", "npz"})
MARKER = "dlgenome-unfinished-run.txt"
SPOOL = "scores.spool"

_MARKER_TEXT = "An unfinished dlgenome run keeps its work here. Deleting this folder discards that work.\n"
TRACK_EXTRAS = ("fold_sd",)
"""Further arrays that get a bigWig of their own, beside their place in the HDF5 file."""

_ENDINGS = (
    *("_scores.h5", "_scores.bw", "_ohe.npz", "_attr.npz", ".bed", ".tsv", ".json"),
    *(f"_{extra}.bw" for extra in TRACK_EXTRAS),
)
_SCRATCH = "scratch-"


@dataclass(frozen=True)
class OutputPaths:
    """The names of every file that a run with ``-o PREFIX`` writes."""

    prefix: Path
    targets: tuple[str, ...]
    formats: frozenset[str] = frozenset({"h5", "bigwig"})
    extras: tuple[str, ...] = ()
    """Further arrays that the scores of every target hold: ``fold_sd``, ``reference_se``."""

    def __post_init__(self) -> None:
        unknown = sorted(self.formats - FORMATS)
        if unknown:
            raise UsageError(f"--formats does not know {unknown[0]!r}; choose from h5, bigwig and npz.")
        if len(set(self.targets)) != len(self.targets):
            twice = next(name for name in self.targets if self.targets.count(name) > 1)
            raise UsageError(f"Two targets are called {twice!r}; name one of them with -t NAME=TARGET.")

    def _beside(self, ending: str) -> Path:
        return self.prefix.parent / f"{self.prefix.name}{ending}"

    def scores_h5(self, target: str) -> Path:
        """``PREFIX.<target>_scores.h5``."""
        return self._beside(f".{target}_scores.h5")

    def bigwig(self, target: str) -> Path:
        """``PREFIX.<target>_scores.bw``."""
        return self._beside(f".{target}_scores.bw")

    def extra_bigwigs(self, target: str) -> dict[str, Path]:
        """``PREFIX.<target>_fold_sd.bw``, by the name of its array; empty for runs without."""
        tracks = (extra for extra in self.extras if extra in TRACK_EXTRAS)
        return {extra: self._beside(f".{target}_{extra}.bw") for extra in tracks}

    def npz(self, target: str) -> tuple[Path, Path]:
        """``PREFIX.<target>_ohe.npz`` and ``PREFIX.<target>_attr.npz``."""
        return self._beside(f".{target}_ohe.npz"), self._beside(f".{target}_attr.npz")

    @property
    def regions_bed(self) -> Path:
        """``PREFIX.interpreted_regions.bed``."""
        return self._beside(".interpreted_regions.bed")

    @property
    def skipped_tsv(self) -> Path:
        """``PREFIX.skipped_regions.tsv``."""
        return self._beside(".skipped_regions.tsv")

    @property
    def run_json(self) -> Path:
        """``PREFIX.run.json``: its presence means that the run is finished."""
        return self._beside(".run.json")

    @property
    def partial(self) -> Path:
        """``PREFIX.partial``: the folder that holds everything until the run is finished."""
        return self._beside(".partial")

    @property
    def spool(self) -> Path:
        """The finished rows of an unfinished run, inside ``partial``."""
        return self.partial / SPOOL

    def scratch(self, name: str) -> Path:
        """A path inside ``partial`` for a file that goes away with it."""
        return self.partial / f"{_SCRATCH}{name}"

    def inside_partial(self, final: Path) -> Path:
        """Where a final file is written before it gets its name."""
        return self.partial / final.name

    def all(self) -> tuple[Path, ...]:
        """Every final file, in the order in which they get their names: ``run.json`` is the last."""
        files: list[Path] = []
        for target in self.targets:
            files += [self.scores_h5(target)] if "h5" in self.formats else []
            if "bigwig" in self.formats:
                files += [self.bigwig(target), *self.extra_bigwigs(target).values()]
            files += self.npz(target) if "npz" in self.formats else ()
        return (*files, self.regions_bed, self.skipped_tsv, self.run_json)


def prepare_outputs(paths: OutputPaths, *, overwrite: bool) -> None:
    """Try every output path and create ``PREFIX.partial``; earlier final files stay until replaced.

    Raises UsageError when the prefix cannot be written to, when output exists and ``overwrite`` is false,
    and for a ``PREFIX.partial`` that is not ours, whatever ``overwrite`` says.
    """
    _check_folder(paths)
    existing = [path for path in paths.all() if _exists(path)]
    folders = [path for path in existing if path.is_dir()]
    if folders:
        raise UsageError(f"{folders[0]} is a folder, and this run would write a file of that name.")
    if existing and not overwrite:
        names = ", ".join(str(path) for path in existing)
        raise UsageError(f"This output exists: {names}. Choose another -o, or replace it with --overwrite.")
    if _exists(paths.partial):
        _check_partial(paths)
        if not overwrite:
            raise UsageError(
                f"{paths.partial} holds an unfinished run, or one that is still running; "
                "choose another -o, or discard it with --overwrite."
            )
        discard_partial(paths)
    _create_partial(paths)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror}. Choose another -o.") from error
    return True


def _check_folder(paths: OutputPaths) -> None:
    folder = paths.prefix.parent
    if paths.prefix.is_dir() or paths.prefix.name in ("", ".."):
        raise UsageError(f"-o {paths.prefix} is a folder; add how file names begin, as in -o DIR/run1.")
    if not folder.is_dir():
        if _exists(folder):
            raise UsageError(f"-o {paths.prefix}: {folder} is a file, not a folder; choose another -o.")
        raise UsageError(f"-o {paths.prefix}: the folder {folder} does not exist; create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"-o {paths.prefix}: the folder {folder} may not be written to.")


def _create_partial(paths: OutputPaths) -> None:
    try:
        paths.partial.mkdir()
        (paths.partial / MARKER).write_text(_MARKER_TEXT)
        for final in paths.all():
            trial = paths.inside_partial(final)
            trial.touch()
            trial.unlink()
    except FileExistsError as error:
        raise UsageError(
            f"{paths.partial} was created a moment ago by another run; give each run its own -o."
        ) from error
    except OSError as error:
        if paths.partial.is_dir() and (paths.partial / MARKER).is_file():
            discard_partial(paths)
        raise UsageError(f"Cannot write to {paths.partial}: {error.strerror}. Choose another -o.") from error


def _check_partial(paths: OutputPaths) -> None:
    """Raise UsageError unless the folder is ours and everything in it is, too."""
    partial = paths.partial
    if partial.is_symlink() or not partial.is_dir() or not (partial / MARKER).is_file():
        raise UsageError(
            f"{partial} is in the way and was not made by dlgenome; move it, or choose another -o "
            "(--overwrite does not delete it)."
        )
    foreign = sorted(path for path in partial.iterdir() if not _is_ours(path, paths.prefix.name))
    if foreign:
        raise UsageError(
            f"{foreign[0]} is not a file of dlgenome, so {partial} is not deleted; move that file away first."
        )


def _is_ours(path: Path, prefix_name: str) -> bool:
    if path.is_dir() and not path.is_symlink():
        return False
    if path.name in (MARKER, SPOOL) or path.name.startswith(_SCRATCH):
        return True
    return path.name.startswith(f"{prefix_name}.") and path.name.endswith(_ENDINGS)


def discard_partial(paths: OutputPaths) -> None:
    """Remove ``PREFIX.partial`` and our files in it; raises UsageError when it holds anything else."""
    _check_partial(paths)
    files = sorted(paths.partial.iterdir(), key=lambda path: path.name == MARKER)
    try:
        for path in files:
            path.unlink()
        paths.partial.rmdir()
    except OSError as error:
        raise UsageError(f"Cannot remove {paths.partial}: {error.strerror}. Remove it by hand.") from error


def abandon(paths: OutputPaths) -> None:
    """Leave no ``PREFIX.partial`` of work that failed; where it must stay, a warning says why."""
    try:
        if paths.partial.exists():
            discard_partial(paths)
    except UsageError as problem:  # must not hide what went wrong before
        logger.warning("%s", problem)


def estimate_bytes(
    n_rows: int,
    length: int,
    n_targets: int,
    formats: frozenset[str],
    score_dtype: str = "float32",
    extras: tuple[str, ...] = (),
) -> int:
    """Disk space a run needs while it finishes: the spool and the files made from it, generously rounded.

    Scores compress to about 0.9 of their size where every base has one and to 0.25 where one base in four
    has.
    """
    item = 2 if score_dtype == "float16" else 4
    one_target = 4 * length * ((1.2 + 0.3 * len(extras)) * item + 0.2)
    made = 2.0 + (1.0 if "npz" in formats else 0.0)
    tracks = 1 + sum(extra in TRACK_EXTRAS for extra in extras)
    bigwig = 6.5 * length * tracks if "bigwig" in formats else 0.0
    return int(n_rows * n_targets * (one_target * made + bigwig)) + 2**20


def check_space(paths: OutputPaths, bytes_needed: int) -> None:
    """Raise Interrupted, with both numbers, unless the disk of the output has this much room."""
    free = shutil.disk_usage(paths.prefix.parent).free
    if free < bytes_needed:
        raise Interrupted(
            f"The disk that holds {paths.prefix.parent} has {_readable(free)} free and this run needs about "
            f"{_readable(bytes_needed)}; free some space or choose -o on another disk."
        )


def _readable(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
