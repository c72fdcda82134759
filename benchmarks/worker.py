"""One program in a process of its own; the driver gives it turns.

`python -m benchmarks.worker TASK` takes one JSON object a line on stdin, each an order to explain all
sequences once or to tell how fast convolutions are, and answers each with one JSON object a line on stdout,
be it an error. Runs in the environments of other programs too.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from benchmarks.programs import prepare
from benchmarks.task import Prepared, Task


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far.

    The kernel's own mark where there is one: the number of `getrusage` starts at that of the parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def claim_stdout() -> TextIO:
    """The pipe to the driver; whatever the program prints goes to stderr from here on."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Prepare the program, say so, then follow one order a line until stdin ends."""
    answers = claim_stdout()
    settings: dict[str, Any] = json.loads(sys.argv[1])
    task = Task(**{**settings, "folder": Path(settings["folder"])})
    torch.set_num_threads(task.threads)
    prepared = prepare(task)
    versions = {"python": platform.python_version(), "torch": torch.__version__, **prepared.versions}
    print(json.dumps({"versions": versions, "batch_size": prepared.batch_size}), file=answers)
    for line in sys.stdin:
        order = json.loads(line)
        if order["explain"]:
            answer = explained(prepared, order["save"], torch.device(task.device))
        else:
            answer = {"rate": convolution_rate(task)}
        print(json.dumps(answer), file=answers)


def explained(prepared: Prepared, save: str | None, device: torch.device) -> dict[str, Any]:
    """What one call took, or the error that it ended with."""
    try:
        wait_for(device)
        begun = time.perf_counter()
        scores = prepared.explain()
        wait_for(device)
        seconds = time.perf_counter() - begun
    except Exception as error:
        traceback.print_exc()
        message = " ".join(str(error).split())
        return {"error": f"{type(error).__name__}: {message}"}
    answer = {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}
    if device.type == "cuda":
        answer["peak_device_bytes"] = torch.cuda.max_memory_reserved(device)
    if save:
        np.save(save, scores)
    return answer


def wait_for(device: torch.device) -> None:
    """Until a GPU has done all that it was given; a processor is never ahead of itself."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def convolution_rate(task: Task) -> float:
    """Best operations a second in this process; asked of dlgenome's alone, for it borrows its threads."""
    from benchmarks.bound import best_rate

    return best_rate(task.facts, task.dtype, torch.device(task.device))


if __name__ == "__main__":
    main()
