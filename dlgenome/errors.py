"""Every error that dlgenome raises on purpose, and the exit status each one ends a command with."""

from __future__ import annotations


class DlgenomeError(Exception):
    """A problem that the user can mend; the message says what is wrong and what to do."""

    exit_code = 1


class UsageError(DlgenomeError):
    """Flags or configuration that cannot be used together, or an output that may not be written."""

    exit_code = 2


class InputError(DlgenomeError):
    """An input file that is missing, damaged or not what it should be."""

    exit_code = 3


class CompletenessError(DlgenomeError):
    """Contributions that miss the output difference by more than ``--max-delta`` allows."""

    exit_code = 4


class ToleranceError(DlgenomeError):
    """Two files that differ by more than ``--tolerance`` allows."""

    exit_code = 4


class UnsupportedModelError(DlgenomeError):
    """A model with an operation that has no exact rule, or that cannot be captured as a graph."""

    exit_code = 5


class Interrupted(DlgenomeError):  # noqa: N818 - not an error of the program: the world stopped it
    """A signal, a full disk or a busy lock stopped the run."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """What another program's error says, cut to the first line of its words, for a sentence of ours."""
    lines = str(error).strip("\"' \n").splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(". ")
