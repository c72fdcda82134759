"""What a model returns, found by running it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlgenome.errors import UnsupportedModelError, UsageError, first_line


@dataclass(frozen=True)
class OutputFact:
    """One output of a model."""

    index: int
    shape: tuple[int, ...]
    """Without the batch axis."""

    @property
    def text(self) -> str:
        """For example ``1: (batch, 2, 1000)``."""
        return f"{self.index}: ({', '.join(['batch', *map(str, self.shape)])})"


def flatten_outputs(value: Any) -> tuple[Tensor, ...]:
    """Tensors that a forward returned, in order: one tensor, a sequence of them or a mapping to them."""
    if isinstance(value, Tensor):
        return (value,)
    values = tuple(value.values()) if isinstance(value, Mapping) else value
    if isinstance(values, Sequence) and values and all(isinstance(item, Tensor) for item in values):
        return tuple(values)
    raise UnsupportedModelError(
        f"The model returns a {type(value).__name__};"
        " it must return a tensor, or a tuple or dictionary of tensors."
    )


def run_once(module: nn.Module, input_length: int, *, model_length: int | None = None) -> tuple[Tensor, ...]:
    """Outputs for one sequence of zeros, shape (1, 4, input_length); UsageError where it does not run."""
    own = f"; the model's own length is {model_length}" if model_length not in (None, input_length) else ""
    first = next((tensor for tensor in module.state_dict().values() if tensor.is_floating_point()), None)
    dtype, device = (torch.float32, "cpu") if first is None else (first.dtype, first.device)
    try:
        with torch.no_grad():
            value = module(torch.zeros(1, 4, input_length, dtype=dtype, device=device))
    except Exception as error:
        reason = first_line(error)
        remedy = "choose another --window"
        if "required positional argument" in reason:
            remedy = "give its further inputs with --extra-input"
        raise UsageError(
            f"The model does not run on windows of {input_length} bases{own}"
            f" ({type(error).__name__}: {reason}); {remedy}."
        ) from error
    outputs = flatten_outputs(value)
    if any(output.numel() == 0 for output in outputs):
        raise UsageError(
            f"Windows of {input_length} bases are too short for the model{own}; choose a longer --window."
        )
    return outputs


def find_outputs(
    module: nn.Module, input_length: int, *, model_length: int | None = None
) -> list[OutputFact]:
    """The outputs of the model for windows of ``input_length`` bases."""
    outputs = run_once(module, input_length, model_length=model_length)
    for index, output in enumerate(outputs):
        if output.dim() == 0 or output.shape[0] != 1:
            raise UnsupportedModelError(
                f"Output {index} of the model has shape {tuple(output.shape)} for one sequence;"
                " the first axis must be the batch."
            )
    return [OutputFact(index, tuple(output.shape[1:])) for index, output in enumerate(outputs)]
