"""The last lines of a run, which several commands have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlgenome.merging import MergeSummary
    from dlgenome.pipeline import RunSummary


def regions(number: int) -> str:
    """The number with its noun."""
    return f"{number:,} region{'' if number == 1 else 's'}"


def result_lines(summary: RunSummary | MergeSummary, heading: str = "Wrote:") -> list[str]:
    """How well the contributions add up, the files that are there now, and what can follow."""
    errors = [
        f"Completeness error of {target}: median {found.median:.1e}, "
        f"largest {found.maximum:.1e} (row {found.worst_row})."
        for target, found in summary.completeness.items()
    ]
    following = ["Next:", *(f"  {command}" for command in summary.next_commands)]
    return [
        *errors,
        heading,
        *(f"  {path}" for path in summary.outputs),
        *(following if summary.next_commands else []),
    ]
