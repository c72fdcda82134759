"""What a second target costs, and what folds cost, as ratios of times taken in turns on one machine.

``python -m benchmarks.costs`` explains random sequences with BPNets of random weights (64 filters, 8 dilated
layers, 2114 bases, 20 references): counts alone against counts and a profile, and five folds in one pass
against the same five one after the other. Both sides of a pair run in one process, one right after the other,
so what slows the machine for a while slows both. Starting up and writing files are not in it; runs of their
own pay for these once a fold.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from dlgenome.allocator import keep_freed_memory
from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.devices import automatic_batch_size, resolve_device
from dlgenome.attribution.lowering import lower
from dlgenome.attribution.readout import Readout
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.targets import TargetHead, parse_targets
from dlgenome.pipeline.explain import Batch, Explainer, Rounds, Strands, join_folds
from dlgenome.references.shuffled import shuffle_sequences
from dlgenome.types import Codes, Region, Window

REFERENCES = 20
PROFILE = "profile-chrombpnet"


def engine(arguments: argparse.Namespace, texts: list[str], seed: int) -> DeepLift:
    """A BPNet of the seed's weights, ready to be explained."""
    torch.manual_seed(seed)
    network = BPNet(n_filters=arguments.filters, n_layers=arguments.layers, n_outputs=1).eval()
    head = TargetHead(network, parse_targets(texts))
    columns = arguments.length - 2 * network.trimming
    readouts = [Readout(0, 1)] + ([Readout(1, 1 + columns, "chrombpnet")] if PROFILE in texts else [])
    device = resolve_device(arguments.device)
    program = lower(capture(head, (4, arguments.length), device=device))
    size = automatic_batch_size(program, REFERENCES, device, torch.float32)
    return DeepLift(program, targets=readouts, n_references=REFERENCES, batch_size=size, device=device)


def ratio(rounds: int, first: Callable[[], object], second: Callable[[], object]) -> str:
    """Median, smallest and largest of the time of ``first`` over that of ``second``."""
    first(), second()
    ratios = []
    for _ in range(rounds):
        times = []
        for call in (first, second):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        ratios.append(times[0] / times[1])
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def step(length: int, sequences: int) -> tuple[Codes, Codes]:
    """Random sequences of one step and their references."""
    codes = np.random.default_rng(1).integers(0, 4, (sequences, length)).astype(np.uint8)
    return codes, shuffle_sequences(codes, REFERENCES, 0, dinucleotides=True)


def cost_of_targets(arguments: argparse.Namespace) -> str:
    """Two targets over one."""
    one, two = (engine(arguments, texts, 0) for texts in (["counts"], ["counts", PROFILE]))
    codes, references = step(arguments.length, one.sequences_at_once)
    return ratio(
        arguments.rounds, lambda: two.explain(codes, references), lambda: one.explain(codes, references)
    )


def cost_of_folds(arguments: argparse.Namespace) -> str:
    """All folds in one pass over their sum one by one."""
    engines = [engine(arguments, ["counts"], seed) for seed in range(arguments.folds)]
    codes, references = step(arguments.length, engines[0].sequences_at_once)
    window = Window(Region("chr1", 0, arguments.length), "chr1", 0, arguments.length, arguments.length // 2)
    batch = Batch([window] * len(codes), codes, codes, references)

    def explainer(folds: list[DeepLift]) -> Explainer:
        def no_more(*_: object) -> Codes:
            return references

        return Explainer(
            folds, ["counts"], strands=Strands(), rounds=Rounds(), draw=no_more, reference_se=False
        )

    together, apart = explainer(engines), [explainer([one]) for one in engines]

    def all_folds() -> None:
        for folds in together.explain(batch):
            join_folds(folds, with_sd=True)

    def one_by_one() -> None:
        for one in apart:
            one.explain(batch)

    return ratio(arguments.rounds, all_folds, one_by_one)


def main() -> None:
    """Measure and print both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("filters", 64), ("layers", 8), ("length", 2114), ("folds", 5), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(f"counts and {PROFILE} over counts alone: {cost_of_targets(arguments)}")
    print(f"{arguments.folds} folds in one pass over the folds one by one: {cost_of_folds(arguments)}")


if __name__ == "__main__":
    main()
