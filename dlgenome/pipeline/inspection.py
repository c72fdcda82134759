"""A checkpoint taken apart without scoring anything: what `dlgenome inspect` shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dlgenome.attribution.coverage import OperationFact, operations
from dlgenome.model.checkpoint import LoadedModel, load_model
from dlgenome.model.description import ModelDescription, describe
from dlgenome.model.targets import parse_targets
from dlgenome.pipeline.job import build_program


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint, and the rule that every operation gets for the targets."""

    path: Path
    model: LoadedModel
    description: ModelDescription
    targets: tuple[str, ...]
    operations: tuple[OperationFact, ...]
    notes: tuple[str, ...]

    @property
    def supported(self) -> bool:
        """Whether every operation has an exact rule."""
        return all(fact.exact for fact in self.operations)

    def as_json(self) -> str:
        """Everything as one JSON object."""
        facts: dict[str, Any] = {
            "path": str(self.path),
            "kind": self.model.kind,
            "architecture": self.model.architecture,
            "arguments": dict(self.model.arguments),
            "sha256": self.model.sha256,
            "n_parameters": self.model.n_parameters,
            **asdict(self.description),
            "inspected_targets": self.targets,
            "operations": [asdict(fact) for fact in self.operations],
            "supported": self.supported,
            "notes": self.notes,
        }
        return json.dumps(facts, indent=2, sort_keys=True)


def inspect_model(
    path: Path,
    *,
    targets: tuple[str, ...] = (),
    window: int | None = None,
    model_type: str = "auto",
    architecture: str | None = None,
    architecture_args: Mapping[str, object] | None = None,
    trust_pickle: bool = False,
) -> Inspection:
    """Architecture, layers, outputs and the rule of every operation that ``targets`` need.

    Without targets the first that the model suggests is taken.
    """
    model = load_model(
        path,
        model_type=model_type,
        architecture=architecture,
        architecture_args=architecture_args,
        trust_pickle=trust_pickle,
    )
    description = describe(model, window)
    chosen = targets or tuple(text.split(" ..")[0] for text in description.targets[:1])
    program = build_program(
        model, parse_targets(chosen), description.input_length, torch.device("cpu"), torch.float32
    )
    notes = (*model.notes, *program.notes)
    return Inspection(path, model, description, chosen, tuple(operations(program)), notes)
