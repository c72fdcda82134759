"""Rules that are not DeepLIFT's: the gradient and its relatives.

Each looks at the sequence only, so none of them sums to the output difference. They serve the methods of the
same names, and stand in for missing rules where the user allows it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlgenome.attribution.rules.base import Backward, Call, Multipliers, Rule, fill
from dlgenome.attribution.rules.pooling import AxisMax


class Gradient(Rule):
    """Derivative of the operation at the sequence, whatever the operation is."""

    title = "gradient (not exact)"
    keeps = "inputs"

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Vector-Jacobian product with the inputs of the sequence, repeated for every reference."""
        points = [self._at_sequence(call, index, saved) for index in range(len(call.inputs))]
        values = {ref.name: point for ref, point in zip(call.inputs, points, strict=True)}
        numbers = [point for point in points if point.requires_grad]
        if not numbers:
            return [None] * len(points)
        with torch.enable_grad():
            output = call.op(*fill(saved.args, values), **fill(saved.kwargs, values))
        if isinstance(output, (tuple, list)):
            used = [(part, m) for part, m in zip(output, multiplier, strict=False) if m is not None]
            outputs, seeds = [part for part, _ in used], [m for _, m in used]
        else:
            outputs, seeds = [output], [multiplier]
        found = iter(torch.autograd.grad(outputs, numbers, seeds, allow_unused=True))
        return [next(found) if point.requires_grad else None for point in points]

    @staticmethod
    def _at_sequence(call: Call, index: int, saved: Backward) -> Tensor:
        batch = call.input_batch(index)
        x = saved.sequence(index, batch).expand_as(saved.reference(index, batch))
        point = saved.step.flat_pairs(x, batch).detach().contiguous()
        return point.requires_grad_(point.is_floating_point())


class Held(Rule):
    """Yes or no, of the sequence and of the reference each as it is: no gradient goes back."""

    title = "identity"
    steady = True

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Nothing for any input."""
        return [None] * len(call.inputs)


class AllMaxima(Gradient):
    """Maximum (sign 1) or minimum (-1) over whole axes: the multiplier to wherever the sequence has it.

    Each of several equal maxima gets all of it, as in the original DeepLIFT program; the derivative would
    share it between them.
    """

    title = "maximum of the sequence (not exact)"

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Multiplier where the sequence equals its maximum, zero elsewhere."""
        m = multiplier[0] if isinstance(multiplier, list) else multiplier
        x = self._at_sequence(call, 0, saved).detach() * self.sign
        axes = AxisMax.axes(call)
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        return [(x == x.amax(axes, keepdim=True)) * m.reshape(shape)]


class GuidedBackprop(Gradient):
    """Gradient of an activation, kept only where the multiplier from above is positive.

    Springenberg et al. 2014 (arXiv 1412.6806).
    """

    title = "guided backprop (not exact)"

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Gradient of the positive part of the multiplier."""
        return super().backward(call, multiplier * (multiplier > 0), saved)


class DeconvNet(Rule):
    """The activation itself applied to the multiplier (Zeiler and Fergus 2013, arXiv 1311.2901)."""

    title = "deconvnet (not exact)"

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Activation of the multiplier."""
        return [call.op(multiplier, *saved.args[1:], **saved.kwargs)]


class PassThrough(Rule):
    """The multiplier as it is: the activation counts as the identity."""

    title = "passthrough (not exact)"

    def backward(self, call: Call, multiplier: Any, saved: Backward) -> Multipliers:
        """Multiplier unchanged."""
        return [multiplier]


GRADIENT, GUIDED_BACKPROP, DECONVNET, PASS_THROUGH = Gradient(), GuidedBackprop(), DeconvNet(), PassThrough()
HELD = Held()
