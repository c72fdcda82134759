"""Target descriptions, and the scalars that they select."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlgenome.errors import UnsupportedModelError, UsageError
from dlgenome.model.architectures.bpnet import BPNet
from dlgenome.model.outputs import OutputFact
from dlgenome.model.targets import (
    Target,
    TargetHead,
    check_targets,
    parse_target,
    parse_targets,
    suggest_targets,
)


class _Returns(nn.Module):
    """Returns fixed functions of the sequences, whatever they are."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, sequences: Tensor) -> Any:
        return self.make(sequences)


def _positions_last(sequences: Tensor) -> Tensor:
    return sequences * torch.arange(1.0, sequences.shape[2] + 1)


def _tasks(sequences: Tensor) -> Tensor:
    return sequences.sum(dim=2)


def _scalar(sequences: Tensor) -> Tensor:
    return sequences.sum(dim=(1, 2))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("counts", Target("counts", "counts", "counts")),
        ("index:0", Target("index-0", "index:0", "index", (0,))),
        ("index:0, 3,12", Target("index-0-3-12", "index:0,3,12", "index", (0, 3, 12))),
        ("contrast:2,1", Target("contrast-2-1", "contrast:2,1", "contrast", (2, 1))),
        ("GATA=index:1", Target("GATA", "index:1", "index", (1,))),
        (
            "output:1/index:0@3-8",
            Target("output-1-index-0-3-8", "output:1/index:0@3-8", "index", (0,), 1, (3, 8)),
        ),
        ("profile-bpnet", Target("profile-bpnet", "profile-bpnet", "profile-bpnet")),
        ("profile=profile-chrombpnet", Target("profile", "profile-chrombpnet", "profile-chrombpnet")),
        (
            "output:2/profile-bpnetlite",
            Target("output-2-profile-bpnetlite", "output:2/profile-bpnetlite", "profile-bpnetlite", (), 2),
        ),
        ("my.own:ratio", Target("ratio", "my.own:ratio", "callable")),
        ("r=my folder/output_of.py:ratio", Target("r", "my folder/output_of.py:ratio", "callable")),
    ],
)
def test_targets_parse_into_what_they_say(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "targets are counts, profile-bpnet"),
        ("index", "targets are counts, profile-bpnet"),
        ("index:-1", "targets are counts, profile-bpnet"),
        ("index:1.5", "targets are counts, profile-bpnet"),
        ("index:1,1", "same index is named twice"),
        ("contrast:1", "contrast takes two indices"),
        ("contrast:1,2,3", "contrast takes two indices"),
        ("index:1@5-5", "A must be less than B"),
        ("a/b=counts", "letters, digits, dots"),
        ("=counts", "letters, digits, dots"),
        ("profile", "say which profile score"),
        ("profile:0", "targets are counts, profile-bpnet"),
        ("index:first", "targets are counts, profile-bpnet"),
    ],
)
def test_what_is_no_target_is_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_target(text)


def test_two_targets_must_not_share_their_files() -> None:
    assert [target.name for target in parse_targets(["counts", "all=counts"])] == ["counts", "all"]
    with pytest.raises(UsageError, match="Two targets are called index-0-1"):
        parse_targets(["index:0,1", "index: 0,1"])


def test_head_has_one_column_per_target(one_hot: Callable[..., Tensor]) -> None:
    sequences = one_hot(1, 3, 10)
    model = _Returns(lambda batch: (_positions_last(batch), _tasks(batch)))
    texts = ["output:1/index:2", "output:1/index:0,3", "output:1/contrast:1,2", "output:0/index:1@2-5"]
    targets = parse_targets([*texts, "output:0/contrast:3,0@0-10"])
    check_targets(model, targets, 10)
    found = TargetHead(model, targets)(sequences)
    assert found.shape == (3, 5)
    for row, sequence in enumerate(sequences.tolist()):
        sums = [sum(channel) for channel in sequence]
        weighted = [[value * (at + 1) for at, value in enumerate(channel)] for channel in sequence]
        slow = [
            sums[2],
            sums[0] + sums[3],
            sums[1] - sums[2],
            sum(weighted[1][2:5]),
            sum(weighted[3]) - sum(weighted[0]),
        ]
        assert found[row].tolist() == slow


def test_profiles_are_mean_centred_logits_of_all_strands_side_by_side(
    one_hot: Callable[..., Tensor],
) -> None:
    module = BPNet(n_filters=4, n_layers=2)
    targets = parse_targets(["profile-bpnet", "counts", "output:0/profile-chrombpnet"])
    head = TargetHead(module, targets)
    facts = check_targets(module, targets, 300)
    assert head.widths(facts) == [2 * 194, 1, 2 * 194]
    sequences = one_hot(1, 2, 300)
    columns, (profile, counts) = head(sequences), module(sequences)
    logits = torch.cat([profile[:, 0], profile[:, 1]], dim=1)
    centred = logits - logits.mean(1, keepdim=True)
    assert torch.equal(columns, torch.cat([centred, counts, centred], dim=1))


@pytest.mark.parametrize("text", ["profile-bpnet", "output:1/profile-bpnet"])
def test_a_single_number_is_no_profile(text: str) -> None:
    model = _Returns(lambda batch: (_scalar(batch), _scalar(batch).unsqueeze(1)))
    with pytest.raises(
        UsageError, match="a profile is an output of logits over positions, but the model has"
    ):
        check_targets(model, parse_targets([text]), 9)


FUNCTIONS = """
def ratio(outputs):
    profile, counts = outputs
    return profile[:, 0, 3] - counts


def table(outputs):
    return outputs[1].unsqueeze(1)


def whole(outputs):
    return outputs[0]


def total(outputs):
    return outputs[1].sum()


def broken(outputs):
    return outputs[7]
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "output functions.py"
    path.write_text(FUNCTIONS)
    return path


def test_functions_of_the_outputs_are_targets(functions: Path, one_hot: Callable[..., Tensor]) -> None:
    model = _Returns(lambda batch: (_positions_last(batch), _scalar(batch)))
    targets = parse_targets([f"{functions}:ratio", f"a={functions}:table"])
    assert [target.name for target in targets] == ["ratio", "a"]
    facts = check_targets(model, targets, 9)
    head = TargetHead(model, targets)
    assert head.widths(facts) == [1, 1]
    sequences = one_hot(1, 3, 9)
    profile, counts = model(sequences)
    assert torch.equal(head(sequences), torch.stack([profile[:, 0, 3] - counts, counts], dim=1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("whole", r"returned a tensor \(2, 4, 9\); it must return one number for each sequence"),
        ("total", r"returned a tensor \(\); it must return one number for each sequence"),
        ("broken", r"failed on the model's outputs \(0: \(batch, 4, 9\), 1: \(batch\)\): IndexError: tuple"),
        ("absent", r"^--target .*: .*output functions.py has no function or class called absent"),
    ],
)
def test_functions_that_give_no_number_a_sequence_are_refused(
    name: str, message: str, functions: Path
) -> None:
    model = _Returns(lambda batch: (_positions_last(batch), _scalar(batch)))
    with pytest.raises(UsageError, match=message):
        check_targets(model, parse_targets([f"{functions}:{name}"]), 9)


def test_counts_is_the_second_output_of_bpnet(one_hot: Callable[..., Tensor]) -> None:
    module = BPNet(n_filters=4, n_layers=2)
    targets = parse_targets(["counts"])
    facts = check_targets(module, targets, 300)
    assert [fact.text for fact in facts] == ["0: (batch, 2, 194)", "1: (batch, 1)"]
    sequences = one_hot(1, 2, 300)
    assert torch.equal(TargetHead(module, targets)(sequences), module(sequences)[1])


@pytest.mark.parametrize("make", [_scalar, lambda batch: _scalar(batch).unsqueeze(1)])
def test_single_outputs_with_and_without_a_task_axis(make: Callable[[Tensor], Tensor]) -> None:
    targets = parse_targets(["index:0"])
    check_targets(_Returns(make), targets, 5)
    assert TargetHead(_Returns(make), targets)(torch.ones(2, 4, 5)).tolist() == [[20.0], [20.0]]


@pytest.mark.parametrize(
    ("make", "text", "message"),
    [
        (_tasks, "index:7", r"outputs: 0: \(batch, 4\); index 7 is out of range 0\.\.3"),
        (_tasks, "counts", "counts is the second output"),
        (lambda batch: (_tasks(batch), _tasks(batch)), "counts", "counts is the second output"),
        (lambda batch: [_tasks(batch)] * 2, "index:0", "choose one with output:K/index:0"),
        (lambda batch: {"a": _tasks(batch)}, "output:1/index:0", "there is no output 1"),
        (_tasks, "index:0@1-2", "has no positions"),
        (_positions_last, "index:0", "index:0@0-9"),
        (_positions_last, "index:0@5-10", "positions end at 9"),
        (lambda batch: batch[:, :, :, None], "index:0@0-1", "more than three axes"),
    ],
)
def test_targets_that_the_model_lacks_name_what_it_has(
    make: Callable[[Tensor], Any], text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_targets(_Returns(make), parse_targets([text]), 9)


def test_wrong_window_names_the_models_own_length() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(40, 1))
    assert check_targets(module, (), 10) == [OutputFact(0, (1,))]
    with pytest.raises(UsageError, match="does not run on windows of 12 bases; the model's own length is 10"):
        check_targets(module, (), 12, model_length=10)
    with pytest.raises(UsageError, match="Windows of 50 bases are too short"):
        check_targets(BPNet(n_filters=4, n_layers=2), (), 50)


def test_outputs_that_cannot_be_explained_are_unsupported() -> None:
    with pytest.raises(UnsupportedModelError, match="returns a str"):
        check_targets(_Returns(lambda _: "text"), (), 9)
    with pytest.raises(UnsupportedModelError, match="first axis must be the batch"):
        check_targets(_Returns(lambda batch: batch[0]), (), 9)


def test_suggested_targets_exist(one_hot: Callable[..., Tensor]) -> None:
    assert suggest_targets(check_targets(BPNet(n_filters=4, n_layers=2), (), 300)) == (
        "counts",
        "profile-bpnet",
        "profile-chrombpnet",
        "profile-bpnetlite",
    )
    assert suggest_targets([OutputFact(0, (3,))]) == ("index:0 .. index:2",)
    assert suggest_targets([OutputFact(0, (1,))]) == ("index:0",)
    facts = [OutputFact(0, (1, 50)), OutputFact(1, (2,))]
    assert suggest_targets(facts) == ("output:0/index:0@0-50", "output:1/index:0 .. output:1/index:1")
