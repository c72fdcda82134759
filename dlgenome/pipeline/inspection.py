"""A checkpoint taken apart without scoring anything: what `dlgenome inspect` shows."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlgenome.attribution.blame import BlamingEngine, OperationError
from dlgenome.attribution.coverage import OperationFact, operations
from dlgenome.attribution.layout import StepShape
from dlgenome.attribution.lowering import Program
from dlgenome.attribution.readout import Readout
from dlgenome.encoding import one_hot
from dlgenome.errors import InputError
from dlgenome.model.checkpoint import LoadedModel
from dlgenome.model.description import ModelDescription, describe
from dlgenome.model.inputs import adapt
from dlgenome.model.targets import parse_targets
from dlgenome.pipeline.modelling import ModelRequest
from dlgenome.references.dinucleotide import dinucleotide_shuffle
from dlgenome.regions.fasta import Genome
from dlgenome.types import Codes

N_BLAMED_REFERENCES = 10


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint, and the rule that every operation gets for the targets."""

    path: Path
    model: LoadedModel
    description: ModelDescription
    targets: tuple[str, ...]
    program: Program
    readouts: tuple[Readout, ...]
    notes: tuple[str, ...]
    flags: tuple[str, ...] = ()
    """Words of the command line that say how the checkpoint is read."""

    @property
    def command(self) -> str:
        """A command that explains the model, with words in capitals to fill in."""
        words = ["dlgenome", "attribute", "-m", str(self.path), *self.flags]
        words += ["-g", "GENOME.fa", "-r", "REGIONS.bed", "-t", self.targets[0], "-o", "PREFIX"]
        return shlex.join(words)

    @property
    def operations(self) -> list[OperationFact]:
        """Every operation with its rule, refused ones last."""
        return operations(self.program)

    @property
    def supported(self) -> bool:
        """Whether every operation has an exact rule."""
        return not self.program.refusals

    def as_json(self) -> str:
        """Everything as one JSON object."""
        facts: dict[str, Any] = {
            "path": str(self.path),
            "kind": self.model.kind,
            "architecture": self.model.architecture,
            "arguments": dict(self.model.arguments),
            "sha256": self.model.sha256,
            "n_parameters": self.model.n_parameters,
            "title": self.model.title,
            "alphabet": self.model.alphabet,
            "command": self.command,
            **asdict(self.description),
            "inspected_targets": self.targets,
            "operations": [asdict(fact) for fact in self.operations],
            "supported": self.supported,
            "notes": self.notes,
        }
        return json.dumps(facts, indent=2, sort_keys=True)


def blame_operations(found: Inspection, fasta: Path | None = None) -> list[OperationError]:
    """The completeness error of every operation for one sequence and its shuffles, the worst first.

    The sequence is the first record of ``fasta``, or random bases.
    """
    length = found.description.input_length
    codes = _first_record(fasta, length) if fasta else np.random.default_rng(0).integers(0, 4, length)
    codes = codes.astype(np.uint8)
    shuffled = dinucleotide_shuffle(codes, N_BLAMED_REFERENCES, seed=0)
    values = one_hot(np.concatenate([codes[None], shuffled]))
    rows = torch.from_numpy(values).to(torch.float32)
    engine = BlamingEngine(found.program, StepShape(1, N_BLAMED_REFERENCES))
    return engine.blame(rows, found.readouts[0])


def _first_record(fasta: Path, length: int) -> Codes:
    with Genome(fasta) as genome:
        first = genome.contigs[0]
        if first.length != length:
            raise InputError(
                f"{fasta}: record {first.name} has {first.length} bases, the model takes {length}."
            )
        return genome.fetch(first.name, 0, length)


def inspect_model(
    request: ModelRequest, *, targets: tuple[str, ...] = (), window: int | None = None
) -> Inspection:
    """Architecture, layers, outputs and the rule of every operation that ``targets`` need.

    Without targets the first that the model suggests is taken.
    """
    model = request.load()
    length = model.length(window)
    model = adapt(model, request.form, length)  # its notes are part of the answer
    description = describe(model, length)
    chosen = targets or tuple(text.split(" ..")[0] for text in description.targets[:1])
    program, readouts = request.program(
        model, parse_targets(chosen), length, torch.device("cpu"), torch.float32
    )
    notes = (*model.notes, *program.notes)
    flags = (*request.flags(), *(("--window", str(window)) if window else ()))
    return Inspection(request.path, model, description, chosen, program, readouts, notes, flags)
