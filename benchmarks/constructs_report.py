"""What came of the constructs, as Markdown tables and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks.constructs import CONSTRUCTS
from benchmarks.constructs_compare import Measured, Result, Status
from benchmarks.processes import CHECKOUT
from benchmarks.report import table

BEGIN, END = "<!-- made by `python -m benchmarks constructs` from here -->", "<!-- to here -->"
STATUSES: tuple[Status, ...] = get_args(Status)
SHOWN = 110
"""Characters of a message that are shown."""


def markdown(facts: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """Circumstances, counts, every cell, and the errors in the programs' own words."""
    constructs = list(measured[0].results)
    names = [f"{each.program} {each.versions[each.program]}" for each in measured]
    rows = [
        (CONSTRUCTS[construct].title, *(cell(each.results[construct]) for each in measured))
        for construct in constructs
    ]
    parts = [
        _circumstances(facts, measured),
        table(("program", *STATUSES), [_counts(each) for each in measured]),
        table(("network", *names), rows),
    ]
    said = _messages(measured)
    if said:
        parts.append("In their own words:")
        parts.append(table(("program", "networks", "error"), said))
    return "\n\n".join(parts)


def _circumstances(facts: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    torches = sorted({each.versions["torch"] for each in measured})
    return (
        f"Taken on {str(facts['date'])[:10]} at commit {facts['commit']}, torch {' and '.join(torches)}, "
        f"with `{facts['command_line']}`."
    )


def _counts(measured: Measured) -> tuple[str, ...]:
    counts = Counter(result.status for result in measured.results.values())
    return (measured.program, *(str(counts[status]) for status in STATUSES))


def cell(result: Result) -> str:
    """Status and numbers, float32 / float64; of a crash its kind, of a refusal the numbers it withheld."""
    numbers = " / ".join(
        "none" if each is None else f"{each:.2g}" for each in (result.float32, result.float64)
    )
    has_numbers = result.float32 is not None or result.float64 is not None
    if result.status == "crashed":
        return f"crashed: {result.error}"
    if result.status == "refused":
        return f"refused ({numbers})" if has_numbers else "refused"
    return f"{result.status.replace(' and ', ', ')} {numbers}"


def _messages(measured: Sequence[Measured]) -> list[tuple[str, str, str]]:
    """Program, how many networks and the error, the most frequent first."""
    counts = Counter(
        (each.program, f"{result.status}: {result.error}: {_shortened(result.message)}")
        for each in measured
        for result in each.results.values()
        if result.error is not None
    )
    order = {each.program: place for place, each in enumerate(measured)}
    ranked = sorted(counts.items(), key=lambda item: (order[item[0][0]], -item[1]))
    return [(program, str(count), said) for (program, said), count in ranked]


def _shortened(message: str) -> str:
    local = message.replace(f"{CHECKOUT}/", "")
    text = " ".join(local.split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= SHOWN else text[:SHOWN].rsplit(" ", 1)[0] + " ..."


def write_markdown(path: Path, text: str) -> None:
    """Put the tables between the marks of a page that has them, or into a file of their own."""
    page = path.read_text() if path.is_file() else f"{BEGIN}\n{END}\n"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no line {BEGIN} followed by a line {END} to put the tables between.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def as_json(facts: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """Everything, warnings and whole messages included; an infinite number is null."""
    return json.dumps({"facts": facts, "programs": [_plain(each) for each in measured]}, indent=2) + "\n"


def _plain(measured: Measured) -> dict[str, Any]:
    plain = asdict(measured)
    for result in plain["results"].values():
        for precision in ("float32", "float64"):
            if result[precision] == float("inf"):
                result[precision] = None
    return plain
