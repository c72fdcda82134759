"""One batch of windows explained: by every fold, on one strand or both, with rounds of references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.attribution.contributions import (
    Contributions,
    base_standard_error,
    flipped,
    join_rounds,
    join_strands,
    summarised,
    total_standard_error,
)
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.encoding import one_hot, reverse_complement
from dlgenome.folds import fold_mean
from dlgenome.types import Codes, RegionScores, Window

REFERENCE_SE = "reference_se"
Draw = Callable[[Codes, NDArray[np.int64], int], NDArray[Any]]
"""Draws the references of sequences from an index on."""


@dataclass(frozen=True)
class Strands:
    """Which strands are explained."""

    both: bool = False
    follow_region: bool = False
    """Explain regions on the minus strand on that strand."""


@dataclass(frozen=True)
class Rounds:
    """How many rounds of references a region gets: until its total is known well enough."""

    target_error: float | None = None
    least: int = 1
    most: int = 1


@dataclass(frozen=True)
class Batch:
    """Windows read from the genome, with the references of the first round."""

    windows: list[Window]
    codes: Codes
    """In genome orientation."""
    oriented: Codes
    """As the model sees them."""
    references: NDArray[Any]

    def part(self, rows: slice) -> Batch:
        """Some of the windows."""
        return Batch(self.windows[rows], self.codes[rows], self.oriented[rows], self.references[rows])

    @property
    def input_rows(self) -> NDArray[np.int64]:
        """Row of each window in the input file."""
        return np.array([window.region.input_row for window in self.windows])


def orient(codes: Codes, windows: Sequence[Window], strands: Strands) -> Codes:
    """Codes as the model sees them: minus-strand regions reverse-complemented where strands are followed."""
    if not strands.follow_region:
        return codes
    minus = _on_minus(windows)
    oriented = codes.copy()
    oriented[minus] = reverse_complement(codes[minus])
    return oriented


class Explainer:
    """Explains batches with the engines of all folds; memory holds one fold's activations at a time."""

    def __init__(
        self,
        engines: Sequence[DeepLift],
        target_names: Sequence[str],
        *,
        strands: Strands,
        rounds: Rounds,
        draw: Draw,
        reference_se: bool,
    ) -> None:
        self.engines, self.target_names = engines, target_names
        self.strands, self.rounds, self.draw = strands, rounds, draw
        self.reference_se = reference_se

    @property
    def sequences_at_once(self) -> int:
        """Sequences that a batch may hold."""
        return self.engines[0].sequences_at_once

    def abandon(self) -> None:
        """Let :meth:`explain`, in whatever threads it runs, raise Interrupted before its next step."""
        for engine in self.engines:
            engine.abandon()

    def explain(self, batch: Batch) -> list[list[dict[str, RegionScores]]]:
        """For every window the scores of each fold by target name, in genome orientation."""
        found = self._all_rounds(batch)
        minus = _on_minus(batch.windows) if self.strands.follow_region else np.zeros(len(found), bool)
        return [
            [
                {
                    name: self._region_scores(_turned(scores, turn), codes)
                    for name, scores in zip(self.target_names, fold, strict=True)
                }
                for fold in window
            ]
            for window, turn, codes in zip(found, minus, batch.codes, strict=True)
        ]

    def _all_rounds(self, batch: Batch) -> list[list[list[Contributions]]]:
        """[window][fold][target] contributions, each of one sequence."""
        rounds: list[list[list[list[Contributions]]]] = [[] for _ in batch.windows]
        active, references = np.arange(len(batch.windows)), batch.references
        while len(active):
            results = [self._strands(engine, batch.oriented[active], references) for engine in self.engines]
            for place, row in enumerate(active):
                rounds[row].append([[_single(target, place) for target in fold] for fold in results])
            active = np.array([row for row in active if self._needs_more(rounds[row])], dtype=np.int64)
            if len(active):
                first = self.engines[0].n_references * len(rounds[active[0]])
                references = self.draw(batch.oriented[active], batch.input_rows[active], first)
        return [_joined_rounds(parts) for parts in rounds]

    def _needs_more(self, rounds: Sequence[Sequence[Sequence[Contributions]]]) -> bool:
        """Whether the error of any fold's total for any target is still too large."""
        wanted = self.rounds
        if wanted.target_error is None or len(rounds) >= wanted.most:
            return False
        if len(rounds) < wanted.least:
            return True
        joined = _joined_rounds(rounds)
        errors = [total_standard_error(target)[0] for fold in joined for target in fold]
        return bool(max(errors) > wanted.target_error)

    def _strands(self, engine: DeepLift, codes: Codes, references: NDArray[Any]) -> list[Contributions]:
        found = engine.explain(codes, references)
        if self.strands.both:
            backward = engine.explain(reverse_complement(codes), _reverse_complement_references(references))
            found = [join_strands(one, flipped(other)) for one, other in zip(found, backward, strict=True)]
        return [summarised(target) for target in found]

    def _region_scores(self, scores: Contributions, codes: Codes) -> RegionScores:
        extras = {}
        if self.reference_se:
            error = base_standard_error(scores)[0].astype(np.float32)
            extras[REFERENCE_SE] = one_hot(codes).astype(np.float32) * error
        return RegionScores(
            hypothetical=scores.hypothetical[0].astype(np.float32),
            projected=scores.projected[0].astype(np.float32),
            prediction=float(scores.prediction[0]),
            reference_prediction=float(scores.reference_prediction[0]),
            contribution_sum=float(scores.contribution_sum[0]),
            mean_abs_delta=float(scores.mean_abs_delta[0]),
            n_references=scores.pair_sums.shape[1],
            extras=extras,
        )


def _on_minus(windows: Sequence[Window]) -> NDArray[np.bool_]:
    return np.array([window.region.strand == "-" for window in windows])


def _turned(scores: Contributions, turn: bool) -> Contributions:
    return flipped(scores) if turn else scores


def _single(scores: Contributions, place: int) -> Contributions:
    """The contributions of one sequence of a batch."""
    fields: dict[str, Any] = {
        name: None if values is None else values[place : place + 1] for name, values in vars(scores).items()
    }
    return Contributions(**fields)


def join_folds(folds: Sequence[dict[str, RegionScores]], *, with_sd: bool) -> dict[str, RegionScores]:
    """The mean over folds by target name; the one fold itself where there is one."""
    if len(folds) == 1:
        return folds[0]
    return {name: fold_mean([fold[name] for fold in folds], with_sd=with_sd) for name in folds[0]}


def _joined_rounds(rounds: Sequence[Sequence[Sequence[Contributions]]]) -> list[list[Contributions]]:
    """[fold][target] of one window from [round][fold][target]."""
    return [
        [join_rounds([part[fold][target] for part in rounds]) for target in range(len(rounds[0][fold]))]
        for fold in range(len(rounds[0]))
    ]


def _reverse_complement_references(references: NDArray[Any]) -> NDArray[Any]:
    """References of the other strand: codes (..., length) or numbers (..., 4, length) in A, C, G, T order."""
    if references.dtype == np.uint8:
        return reverse_complement(references)
    return np.ascontiguousarray(references[..., ::-1, ::-1])
