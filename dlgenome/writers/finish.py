"""The end of a run: every final file is made inside ``PREFIX.partial``, then all get their names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig

from dlgenome.errors import Interrupted
from dlgenome.provenance import file_sha256
from dlgenome.scores import AttributeValue, CompletenessSummary, ScoresFile, summarize_completeness
from dlgenome.types import Contig, SkippedRegion, Window
from dlgenome.writers.bed import write_interpreted_regions, write_skipped
from dlgenome.writers.bigwig import write_bigwig
from dlgenome.writers.blocks import decode_windows
from dlgenome.writers.disk import clear_write_errors, sync
from dlgenome.writers.hdf5 import write_scores
from dlgenome.writers.npz import write_npz
from dlgenome.writers.overlap import Overlap
from dlgenome.writers.partial import abandon
from dlgenome.writers.paths import TRACK_EXTRAS, OutputPaths, check_space
from dlgenome.writers.run_json import write_run_json
from dlgenome.writers.spool import Spool
from dlgenome.writers.spool_reader import SpoolReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContent:
    """What the files of a run say beside the scores."""

    contigs: tuple[Contig, ...]
    identity: Mapping[str, AttributeValue]
    provenance: Mapping[str, AttributeValue]
    skipped: Sequence[SkippedRegion]
    overlap: Overlap
    crop: int | None
    """Bases around the centre of each window that go into the bigWig; None for all."""
    target_identity: Mapping[str, Mapping[str, AttributeValue]] = field(default_factory=dict)
    """Attributes that only the file of one target has."""

    def identity_of(self, target: str) -> dict[str, AttributeValue]:
        """Identity of the file of one target."""
        return {**self.identity, **self.target_identity.get(target, {})}


def finish_run(
    paths: OutputPaths,
    spool: Spool,
    content: RunContent,
    *,
    run_facts: Callable[[], Mapping[str, Any]],
    check_lock: Callable[[], None] = lambda: None,
    point_of_no_return: Callable[[], None] = lambda: None,
    keep_partial: bool = False,
) -> dict[str, CompletenessSummary]:
    """Make every final file, name them with ``run.json`` last; then remove ``PREFIX.partial`` or keep it.

    Returns how well the contributions of each target add up, which also goes into ``run.json`` beside the
    given ``run_facts`` and the SHA-256 of every other file. ``check_lock`` raises where another run has taken
    the prefix meanwhile, and ``point_of_no_return`` is called right before ``run.json`` gets its name. Raises
    Interrupted when the disk is full or fails; whatever has its final name by then is whole, and there is no
    ``run.json``.
    """
    spool.close()
    _check_room(paths)
    completeness: dict[str, CompletenessSummary] = {}
    with SpoolReader(paths.spool) as reader:
        if reader.rows != spool.rows:
            raise Interrupted(
                f"{paths.spool} gives back {reader.rows} of the {spool.rows} rows written to it, so the disk "
                "cannot be trusted; run again with -o on another disk."
            )
        for target in paths.targets:
            completeness[target] = _write_target(paths, reader, target, content)
        bed = paths.inside_partial(paths.regions_bed)
        write_interpreted_regions(bed, _windows(reader), content.contigs)
        all_skipped = _in_input_order(content.skipped, reader.failures())
    write_skipped(paths.inside_partial(paths.skipped_tsv), all_skipped)
    facts = {"completeness": completeness, **_files(paths), **run_facts()}
    write_run_json(paths.inside_partial(paths.run_json), facts)
    _publish(paths, check_lock, point_of_no_return)
    if not keep_partial:
        abandon(paths)
    return completeness


def _files(paths: OutputPaths) -> dict[str, Any]:
    """Names of all final files, and the digest of each but ``run.json``, which holds them."""
    *others, run_json = paths.all()
    with clear_write_errors(paths.partial):
        digests = {path.name: file_sha256(paths.inside_partial(path)) for path in others}
    return {"outputs": [*digests, run_json.name], "sha256": digests}


def _check_room(paths: OutputPaths) -> None:
    """Full disks crash h5py, so the room is checked before the HDF5 files are begun."""
    with clear_write_errors(paths.spool):  # the folder may have gone while the run went on
        spooled = paths.spool.stat().st_size
    copies = 2 if "npz" in paths.formats else 1
    tracks = 1 + sum(extra in TRACK_EXTRAS for extra in paths.extras)
    check_space(paths, spooled * copies + spooled * tracks // 2 + 2**20)


def _write_target(
    paths: OutputPaths, reader: SpoolReader, target: str, content: RunContent
) -> CompletenessSummary:
    """Write the files of one target; the HDF5 file is made even when only others are asked for."""
    scores_path = paths.inside_partial(paths.scores_h5(target))
    logger.info("Writing the scores of %s.", target)
    contigs, identity = content.contigs, content.identity_of(target)
    write_scores(scores_path, reader, target, contigs, identity, content.provenance)
    with ScoresFile(scores_path) as scores:
        if "bigwig" in paths.formats:
            for extra, final in ((None, paths.bigwig(target)), *paths.extra_bigwigs(target).items()):
                bigwig, crop = paths.inside_partial(final), content.crop
                write_bigwig(bigwig, scores, overlap=content.overlap, crop=crop, contigs=contigs, extra=extra)
                _read_back(bigwig, contigs)
        if "npz" in paths.formats:
            ohe, attr = (paths.inside_partial(path) for path in paths.npz(target))
            write_npz(ohe, attr, scores)
        return summarize_completeness(scores.qc["delta_error"])


def _read_back(path: Path, contigs: tuple[Contig, ...]) -> None:
    """Open a finished bigWig with the library that most tools use; it must see every contig."""
    with clear_write_errors(path), pyBigWig.open(str(path)) as bigwig:
        if not bigwig.isBigWig() or dict(bigwig.chroms()) != {c.name: c.length for c in contigs}:
            raise RuntimeError(f"{path} cannot be read back as it was written")


def _windows(reader: SpoolReader) -> Iterator[Window]:
    for _, facts in reader.blocks():
        yield from decode_windows(facts)


def _in_input_order(*parts: Sequence[SkippedRegion]) -> Iterator[SkippedRegion]:
    """The regions of all parts; a part may make them when they are asked for, so none is kept."""
    rows = np.fromiter((one.region.input_row for part in parts for one in part), np.int64)
    part_ends = np.cumsum([len(part) for part in parts])
    for place in np.argsort(rows, kind="stable"):
        part = int(np.searchsorted(part_ends, place, side="right"))
        yield parts[part][int(place - part_ends[part])]


def _publish(
    paths: OutputPaths, check_lock: Callable[[], None], point_of_no_return: Callable[[], None]
) -> None:
    """Sync every file, then rename; an older ``run.json`` goes first, for it vouches for the older files."""
    folder = paths.prefix.parent
    with clear_write_errors(paths.run_json):
        for path in paths.all():
            sync(paths.inside_partial(path))
        sync(paths.partial)
        check_lock()
        paths.run_json.unlink(missing_ok=True)
        *others, run_json = paths.all()
        for path in others:
            paths.inside_partial(path).replace(path)
        sync(folder)
        point_of_no_return()
        paths.inside_partial(run_json).replace(run_json)
        sync(folder)
