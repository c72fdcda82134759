"""Whatever a file holds, it is read, or refused in one sentence, in bounded time and memory.

A few files of each kind are damaged here. For a long run::

    export DLGENOME_FUZZ_EXAMPLES=20000 DLGENOME_FUZZ_SEED=7
    export DLGENOME_FUZZ_KEEP=found DLGENOME_FUZZ_REPORT=fuzz.json
    python -m pytest tests/fuzz -k damaged
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("DLGENOME_FUZZ_EXAMPLES", "10"))
SEED = int(os.environ.get("DLGENOME_FUZZ_SEED", "0"))
KINDS = (
    "bed", "bed.gz", "fasta", "fasta.bgz", "fai", "yaml", "run.json", "scores.h5", "references.h5",
    "references.npz", "npy", "torch zip", "torch legacy", "safetensors", "pt2", "keras.h5", "keras zip",
    "keras json",
)  # fmt: skip


def test_every_kind_of_file_is_damaged(worker: Any) -> None:
    assert worker.kinds == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(worker: Any, kind: str) -> None:
    for number in range(0, -4, -1):
        answer = worker.ask(kind, number)
        unknown_layers = "Keras weights without a description" in answer.error
        assert answer.outcome == "read" or unknown_layers, answer.error


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused_in_a_sentence(
    worker: Any, kind: str, report: dict[str, Any], keep: Callable[[Any, str], None]
) -> None:
    answers, problems = list[Any](), list[str]()

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(1, 2**53))
    def read(number: int) -> None:
        answer = worker.ask(kind, number)
        answers.append(answer)
        if not answer.is_fine:
            keep(answer, f"{kind.replace(' ', '.')}.{number}")
            problems.append(f"{kind} {number}: {answer.outcome}: {answer.error[-1000:]}")

    read()
    report[kind] = {
        "inputs": len(answers),
        **Counter(answer.outcome for answer in answers),
        "slowest, seconds": round(max(answer.seconds for answer in answers), 2),
        "most memory, MiB": round(max(answer.memory for answer in answers) / 2**20, 1),
    }
    assert not problems, "\n".join(problems)
