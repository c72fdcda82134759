"""The whole job on simulated data: a genome with planted motifs, a small model, scores, and a picture."""

from __future__ import annotations

import logging
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.config import RunConfig
from dlgenome.errors import UsageError
from dlgenome.pipeline import RunSummary, attribute, output_paths
from dlgenome.plotting.logos import LogoPanel, Span, plot_regions, zoomed
from dlgenome.scores import ScoresFile
from dlgenome_sim.files import write_fasta, write_narrow_peak, write_truth
from dlgenome_sim.genome import SPACING, SimulatedGenome, simulate_genome
from dlgenome_sim.models import INPUT_LENGTH, SHIPPED_WEIGHTS
from dlgenome_sim.motifs import MOTIFS, PlantedMotif

log = logging.getLogger("dlgenome.demo")  # below the logger that the command line shows

ARCHITECTURE = "dlgenome_sim.models:demo_network"
TARGET = "activity=index:0"
N_REFERENCES = 20
DRAWN_REGIONS = 6
DRAWN_BASES = 120


@dataclass(frozen=True)
class DemoFiles:
    """The names of the files that the demo writes into its folder."""

    folder: Path

    @property
    def genome(self) -> Path:
        return self.folder / "genome.fa"

    @property
    def peaks(self) -> Path:
        return self.folder / "peaks.narrowPeak"

    @property
    def truth(self) -> Path:
        """Where the motifs were planted."""
        return self.folder / "planted_motifs.bed"

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def picture(self) -> Path:
        return self.folder / "logos.png"

    def config(self, **settings: Any) -> RunConfig:
        """The settings of the scoring run on these files."""
        given: dict[str, Any] = {
            "model": self.model,
            "architecture": ARCHITECTURE,
            "window": INPUT_LENGTH,
            "genome": self.genome,
            "regions": str(self.peaks),
            "targets": (TARGET,),
            "n_references": N_REFERENCES,
            "output": self.folder / "demo",
        }
        return RunConfig(**(given | settings))

    @property
    def scores(self) -> Path:
        """The HDF5 file."""
        return output_paths(self.config()).scores_h5("activity")

    @property
    def bigwig(self) -> Path:
        return output_paths(self.config()).bigwig("activity")

    def all(self) -> tuple[Path, ...]:
        """Every file, in the order of their making."""
        inputs = (self.genome, self.peaks, self.truth, self.model)
        return (*inputs, *output_paths(self.config()).all(), self.picture)

    def attribute_command(self) -> str:
        """The same scores from the command line, under another name."""
        flags = {
            "-m": self.model,
            "--architecture": ARCHITECTURE,
            "--window": INPUT_LENGTH,
            "-g": self.genome,
            "-r": self.peaks,
            "-t": TARGET,
            "--n-references": N_REFERENCES,
            "-o": self.folder / "again",
        }
        return shlex.join(["dlgenome", "attribute", *(str(word) for pair in flags.items() for word in pair)])


@dataclass(frozen=True)
class DemoResult:
    """What came out, beside the files."""

    files: DemoFiles
    run: RunSummary
    strongest_planted: NDArray[np.bool_]
    """For each region whether its strongest base lies in a planted motif; the strongest region first."""
    drawn: int
    """How many of these the picture shows."""
    planted_share: float
    """The share of all scored bases that lie in planted motifs: what chance would reach."""


def run_demo(
    folder: Path,
    *,
    regions: int = 300,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> DemoResult:
    """Simulate, score and draw; further ``settings`` are those of a RunConfig.

    Raises UsageError for a folder that cannot be written to, or that holds files unless ``overwrite`` is set,
    which replaces the files of an earlier demo and leaves all others alone.
    """
    files = DemoFiles(folder)
    _prepare_folder(files, overwrite)
    genome = write_inputs(files, regions=regions, seed=seed)
    log.info(
        "Simulated a genome with %s regions and %s planted motifs; the model learned such motifs elsewhere.",
        f"{len(genome.peaks):,}",
        f"{len(genome.planted):,}",
    )
    run = attribute(files.config(overwrite=overwrite, **settings), progress)
    with ScoresFile(files.scores) as scores:
        order = _strongest_first(scores)
        marks = planted_bases(scores, genome.planted)
        strongest = np.abs(scores.projected(slice(None))).sum(axis=1).argmax(axis=1)
        _draw(files.picture, scores, order[:DRAWN_REGIONS], genome.planted)
    inside = marks[np.arange(len(marks)), strongest]
    drawn = min(DRAWN_REGIONS, len(order))
    return DemoResult(files, run, inside[order], drawn, float(marks.mean()))


def planted_bases(scores: ScoresFile, planted: Sequence[PlantedMotif]) -> NDArray[np.bool_]:
    """(regions, length): which bases of every scored window lie in a planted motif."""
    marks = np.zeros((scores.n_regions, scores.length), dtype=np.bool_)
    for row, window in enumerate(scores.windows()):
        for site in _sites_in(planted, window.chrom, window.start, window.end):
            marks[row, max(site.start - window.start, 0) : site.end - window.start] = True
    return marks


def _sites_in(planted: Sequence[PlantedMotif], chrom: str, start: int, end: int) -> Iterator[PlantedMotif]:
    return (site for site in planted if site.chrom == chrom and site.start < end and site.end > start)


def _strongest_first(scores: ScoresFile) -> NDArray[np.intp]:
    """Rows by the sum of their absolute contributions, the largest first."""
    totals = np.abs(scores.projected(slice(None))).sum(axis=(1, 2), dtype=np.float64)
    return np.argsort(-totals, kind="stable")


def _prepare_folder(files: DemoFiles, overwrite: bool) -> None:
    folder = files.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in folder.iterdir())
        if held and not overwrite:
            raise UsageError(
                f"-o {folder} is not empty (it holds {held[0]}): choose a new folder, "
                "or replace the files of an earlier demo with --overwrite."
            )
        # An index of an earlier genome must not outlive it.
        files.genome.with_name(f"{files.genome.name}.fai").unlink(missing_ok=True)
        files.genome.touch()
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"-o {folder} is a file, not a folder; choose another -o.") from error
    except OSError as error:
        raise UsageError(
            f"-o {folder} cannot be written to ({error.strerror}); choose another -o."
        ) from error


def _simulate(regions: int, seed: int) -> SimulatedGenome:
    """A genome of two chromosomes with this many peaks together."""
    peaks = {"chrA": regions - regions // 2, "chrB": regions // 2}
    return simulate_genome({chrom: (n + 2) * SPACING for chrom, n in peaks.items() if n}, seed)


def write_inputs(files: DemoFiles, *, regions: int, seed: int = 0) -> SimulatedGenome:
    """Write genome, peaks, planted motifs and model; the genome comes back."""
    genome = _simulate(regions, seed)
    write_fasta(files.genome, genome.contigs)
    write_narrow_peak(files.peaks, genome.peaks)
    write_truth(files.truth, genome.planted)
    shutil.copyfile(SHIPPED_WEIGHTS, files.model)
    return genome


def _draw(path: Path, scores: ScoresFile, rows: NDArray[np.intp], planted: Sequence[PlantedMotif]) -> None:
    panels = []
    for row in (int(row) for row in rows):
        window = scores.window(row)
        spans = tuple(
            Span(site.start, site.end, site.name, site.strand)
            for site in _sites_in(planted, window.chrom, window.start, window.end)
        )
        title = f"{window.region.name}, predicted activity {scores.qc['prediction'][row]:.2f}"
        panel = LogoPanel(scores.projected(row), window.chrom, window.start, spans, title)
        panels.append(zoomed(panel, DRAWN_BASES))
    plot_regions(
        panels,
        path,
        title=f"The {len(panels)} simulated regions with the largest scores, and the motifs planted in them",
        subtitle=f"planted: {_legend()}      (▸ as written, ◂ reverse complement)",
    )


def _legend() -> str:
    return "      ".join(
        f"{motif.name} {motif.consensus}" + (" (represses)" if motif.effect < 0 else "") for motif in MOTIFS
    )
