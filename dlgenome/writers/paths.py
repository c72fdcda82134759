"""Where the files of a run go, and how much room they take.

Everything is written inside ``PREFIX.partial/`` and renamed to its final name when it is complete;
``run.json`` comes last and means that the run is finished.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dlgenome.errors import Interrupted, UsageError

FORMATS = frozenset({"h5", "bigwig", "npz"})
SPOOL = "scores.spool"
STATE = "run-state.json"
KEPT_REGIONS = "stdin.bed"
TRACK_EXTRAS = ("fold_sd",)
"""Further arrays that get a bigWig of their own, beside their place in the HDF5 file."""

SCRATCH = "scratch-"
"""How files in ``PREFIX.partial`` begin that a step of the work leaves to nobody."""


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

    @property
    def state(self) -> Path:
        """What the unfinished run was asked to do, inside ``partial``: there once it can go on."""
        return self.partial / STATE

    @property
    def kept_regions(self) -> Path:
        """The regions that came through standard input, inside ``partial``."""
        return self.partial / KEPT_REGIONS

    @property
    def lock(self) -> Path:
        """``PREFIX.partial.lock``: there while a process works on the prefix."""
        return self._beside(".partial.lock")

    def scratch(self, name: str) -> Path:
        """A path inside ``partial`` for a file that goes away with it."""
        return self.partial / f"{SCRATCH}{name}"

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


def paths_beside(scores_h5: Path, target: str, extras: tuple[str, ...] = ()) -> OutputPaths | None:
    """The files of the run that a scores file belongs to; None for one that has another name."""
    prefix = scores_h5.name.removesuffix(f".{target}_scores.h5")
    if prefix == scores_h5.name or not target:
        return None
    return OutputPaths(scores_h5.with_name(prefix), (target,), extras=extras)


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
