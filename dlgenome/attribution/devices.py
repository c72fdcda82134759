"""Which device runs the model, and how many pairs it takes at once."""

from __future__ import annotations

import torch

from dlgenome.attribution.lowering import Program
from dlgenome.errors import UsageError

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.float32,
    "float64": torch.float64,
}
"""What values are stored in; tf32 and bfloat16 round only the operands of convolutions (and products)."""
MAX_WORKERS = 1024
_CHOICES = "auto, cpu, cpu:N, cuda, cuda:0, cuda:all or mps"
_CPU_VALUE_BYTES = 16 * 2**20
"""Size of the largest value on the CPU: beyond this, steps gain nothing and memory grows."""
_CPU_VALUE_BYTES_OF_LARGE_MODELS = 128 * 2**20
"""The same where more values make up for reading many weights."""
_PAIRS_FOR_WEIGHTS = 80
"""With so many, reading the weights costs little beside using them."""


def resolve_devices(name: str) -> tuple[torch.device, ...]:
    """One device for each process that is to explain: ``cpu:N``, ``cuda:all`` and ``cuda:0,1`` name several.

    Raises UsageError that says what there is instead.
    """
    kind, _, which = name.partition(":")
    if kind == "cpu" and which:
        if not which.isdecimal() or not 1 <= int(which) <= MAX_WORKERS:
            raise UsageError(
                f"--device {name}: cpu:N starts N processes on the processor, from 1 to {MAX_WORKERS}."
            )
        return (torch.device("cpu"),) * int(which)
    if kind == "cuda" and which == "all":
        resolve_device("cuda")
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    if kind == "cuda" and "," in which:
        numbers = which.split(",")
        if len(set(numbers)) < len(numbers):
            raise UsageError(f"--device {name} names a device twice.")
        return tuple(resolve_device(f"cuda:{number}") for number in numbers)
    return (resolve_device(name),)


def resolve_device(name: str) -> torch.device:
    """The device that ``--device`` names; UsageError says what there is instead."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name} is not a device; choose {_CHOICES}.") from None
    if device.type == "cuda":
        _check_cuda(name, device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: this machine has no Apple GPU that torch can use; choose cpu.")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"--device {name} is not supported; choose {_CHOICES}.")
    return device


def _check_cuda(name: str, device: torch.device) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UsageError(
            f"--device {name}: torch {torch.__version__} finds no CUDA device here; choose cpu or auto."
        )
    if (device.index or 0) >= count:
        raise UsageError(f"--device {name}: there are {count} CUDA devices, numbered from 0.")


def allow_tf32(precision: str) -> None:
    """Whether CUDA may round the operands of float32 products; torch lets convolutions do so by default.

    With bfloat16 those of convolutions, few channels or many, and no others.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision in ("tf32", "bfloat16")


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return device.type


def automatic_batch_size(
    program: Program, n_references: int, device: torch.device, dtype: torch.dtype
) -> int:
    """Pairs a step: on the CPU values that stay near the caches, on a GPU a third of its free memory.

    Depends on the model and the machine only, so that equal runs take equal steps.
    """
    itemsize = torch.finfo(dtype).bits // 8
    per_row = [info.elements_per_row * itemsize for info in program.single_infos()]
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        pairs = int(free / 3 / sum(per_row))
    else:
        for_weights = min(_largest_weight(program) * 2 // 3, _CPU_VALUE_BYTES_OF_LARGE_MODELS)
        largest = max(per_row)
        pairs = max(_CPU_VALUE_BYTES // largest, min(for_weights // largest, _PAIRS_FOR_WEIGHTS))
    if pairs >= n_references:
        return min(pairs, 4096) // n_references * n_references
    return _references_at_once(max(pairs, 1), n_references)


def _references_at_once(about: int, n_references: int) -> int:
    """References a step, near so many: as few as can be are computed beyond those that there are.

    Every step has the same shape, so what the last of them lacks is filled up and computed for nothing.
    """
    near = range((about * 3 + 3) // 4, min(-(-about * 4 // 3), n_references) + 1)
    return min(near, key=lambda size: (-n_references % size, abs(size - about)))


def _largest_weight(program: Program) -> int:
    """Bytes; each step reads all of it, which only pays with enough values to use it on."""
    return max((tensor.nbytes for tensor in program.parameters.values()), default=0)
