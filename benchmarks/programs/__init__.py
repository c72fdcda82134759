"""The programs that can be timed: one file each, imported only where the program is installed."""

from __future__ import annotations

from importlib import import_module

from benchmarks.task import Prepared, Task

PROGRAMS = ("dlgenome", "tangermeme", "captum")


def prepare(task: Task) -> Prepared:
    """The program of the task, ready to explain."""
    if task.program not in PROGRAMS:
        raise ValueError(f"{task.program} is not a program that can be timed: {', '.join(PROGRAMS)}")
    prepared: Prepared = import_module(f"benchmarks.programs.run_{task.program}").prepare(task)
    return prepared
