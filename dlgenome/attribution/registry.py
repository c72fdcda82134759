"""The one table from operation to rule."""

from __future__ import annotations

from typing import Any

from dlgenome.attribution.rules import (
    batch_norm,
    composed,
    convolution,
    dense,
    elementwise,
    linear,
    piecewise,
    pooling,
    products,
    selection,
    softmax,
)
from dlgenome.attribution.rules.base import Rule

RULES: dict[Any, Rule] = {
    **linear.RULES,
    **dense.RULES,
    **convolution.RULES,
    **batch_norm.RULES,
    **elementwise.RULES,
    **piecewise.RULES,
    **composed.RULES,
    **products.RULES,
    **pooling.RULES,
    **selection.RULES,
    **softmax.RULES,
}
