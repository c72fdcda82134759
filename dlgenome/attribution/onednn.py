"""oneDNN's convolution that adds to what is there, which torch has for its compiler and not for users.

Nothing depends on it: it is tried once on small numbers, and done without where it is missing or behaves
otherwise than expected.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def convolve_onto(
    total: Tensor, value: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]
) -> bool:
    """Add the convolution of ``value`` to ``total``, in its place; False, and nothing done, where not."""
    known = total.dtype is value.dtype is weight.dtype is torch.float32 and total.device.type == "cpu"
    if not known or not _works():
        return False
    _convolve_onto(total, value, weight, padding, dilation)
    return True


def _convolve_onto(
    total: Tensor, value: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]
) -> Any:
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        total, value, weight, None, padding, (1, 1), dilation, 1, "add", 1.0, None, [], None
    )


@cache
def _works() -> bool:
    def numbers(*shape: int) -> Tensor:
        made = torch.arange(float(torch.Size(shape).numel())).remainder(7).reshape(shape)
        return made.contiguous(memory_format=torch.channels_last)

    total, value, weight = numbers(2, 16, 1, 40), numbers(2, 16, 1, 40), numbers(16, 16, 1, 3)
    expected = total + F.conv2d(value, weight, None, 1, (0, 2), (1, 2))
    try:
        _convolve_onto(total, value, weight, (0, 2), (1, 2))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(total, expected)
