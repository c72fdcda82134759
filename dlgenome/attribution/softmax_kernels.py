"""Softmax on the way back, row by row on the CPU: one exponential for each logit.

The twin of `rules/softmax.py`, which says what is computed. There, logarithmic means go through logarithms;
here ``L(a, b) = (a - b) / (ln a - ln b)``, whose denominator is known, and a series where the two are close.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlgenome.attribution.kernels import in_threads, is_worth_it
from dlgenome.attribution.layout import BatchAxis, StepShape
from dlgenome.attribution.secant_kernels import log_mean
from dlgenome.compiled import compiled, compiled_in_any_order

Wide = NDArray[np.float64]


def softmax_multiplier(
    sequences: Tensor,
    references: Tensor,
    multiplier: Tensor,
    step: StepShape,
    batch: BatchAxis,
    *,
    logarithm: bool = False,
) -> Tensor | None:
    """Multiplier of logits whose last axis is normalised; ``logarithm`` is for log-softmax.

    None where the values do not suit, or the masks of a sequence and a reference differ; the caller then
    takes the plain path.
    """
    if not is_worth_it(references) or multiplier.dtype is not references.dtype:
        return None
    size = references.shape[-1]
    blocks = math.prod(references.shape[: batch.axis]) * batch.outer * step.sequences
    x = sequences.reshape(blocks, -1, size)
    r, m = (value.reshape(blocks, step.references, -1, size) for value in (references, multiplier))
    out = torch.empty_like(r, memory_format=torch.contiguous_format)
    logits_x, logits_r, given, made = (value.numpy() for value in (x, r, m, out))
    fitted: list[bool] = []

    def work(first: int, last: int) -> None:
        fitted.append(_softmax_rows(logits_x, logits_r, given, made, first, last, logarithm))

    in_threads(work, x.shape[0] * x.shape[1])
    return out.reshape(references.shape) if all(fitted) else None


@compiled_in_any_order
def _centre(logits: Any, centred: Wide, powers: Wide) -> tuple[float, float]:
    """Logits less their mean, and e to the power of what each is below the largest of them.

    Returns the largest and the sum of the powers; a logit of -inf plays no part.
    """
    total, count = 0.0, 0
    for i in range(logits.size):
        known = logits[i] != -np.inf
        total += logits[i] if known else 0.0
        count += known
    mean, largest = total / max(count, 1), -np.inf
    for i in range(logits.size):
        centred[i] = logits[i] - mean
        largest = centred[i] if centred[i] > largest else largest
    if count == 0:
        powers[:] = 0.0
        return 0.0, 1.0
    for i in range(logits.size):
        powers[i] = math.exp(centred[i] - largest)
    total = 0.0
    for i in range(logits.size):
        total += powers[i]
    return largest, total


@compiled
def _masked_alike(one: Wide, other: Wide) -> bool:
    differing = 0
    for i in range(one.size):
        differing += (one[i] == -np.inf) != (other[i] == -np.inf)
    return differing == 0


@compiled
def _means(
    x: Wide, powers_x: Wide, of_x: Any, r: Wide, powers_r: Wide, of_r: Any, mean: Wide, share: Wide
) -> None:
    """The k and w of `rules/softmax.py` for every logit; 0 for those that play no part."""
    (largest_x, sum_x), (largest_r, sum_r) = of_x, of_r
    highest = max(largest_x, largest_r)
    scale_x, scale_r = math.exp(largest_x - highest), math.exp(largest_r - highest)
    between = largest_x - largest_r + math.log(sum_x) - math.log(sum_r)
    whole = 1 / log_mean(sum_x * scale_x, sum_r * scale_r, between)
    share_x, share_r = 1 / sum_x, 1 / sum_r
    for i in range(x.size):
        gap, known = x[i] - r[i], x[i] != -np.inf
        k = log_mean(powers_x[i] * share_x, powers_r[i] * share_r, gap - between)
        w = log_mean(powers_x[i] * scale_x, powers_r[i] * scale_r, gap) * whole
        mean[i], share[i] = k if known else 0.0, w if known else 0.0


@compiled_in_any_order
def _through(logits: Wide, given: Any, mean: Wide, share: Wide, made: Any) -> None:
    """Multipliers of the logits of one row, whose sum is nothing."""
    total, left, count = 0.0, 0.0, 0
    for i in range(logits.size):
        mean[i] *= given[i]
        total += mean[i]
        count += logits[i] != -np.inf
    for i in range(logits.size):
        mean[i] -= share[i] * total
        left += mean[i]
    left /= max(count, 1)
    for i in range(logits.size):
        made[i] = mean[i] - left if logits[i] != -np.inf else 0.0


@compiled
def _softmax_rows(x: Any, r: Any, m: Any, out: Any, first: int, last: int, logarithm: bool) -> bool:
    """Multipliers of the logits r (sequences, references, rows, logits) beside x (sequences, rows, logits).

    False where a logit is -inf on one side only.
    """
    # arrays of their own: of parts of one the compiler cannot tell that they lie apart
    size = x.shape[2]
    logits_x, powers_x, logits_r, powers_r = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    mean, share = np.empty(size), np.empty(size)
    for place in range(first, last):
        sequence, row = place // x.shape[1], place % x.shape[1]
        of_x = _centre(x[sequence, row], logits_x, powers_x)
        for reference in range(r.shape[1]):
            of_r = _centre(r[sequence, reference, row], logits_r, powers_r)
            if not _masked_alike(logits_x, logits_r):
                return False
            _means(logits_x, powers_x, of_x, logits_r, powers_r, of_r, mean, share)
            if logarithm:
                mean[:] = 1.0
            _through(logits_r, m[sequence, reference, row], mean, share, out[sequence, reference, row])
    return True
