"""Models with other input axes, base orders and further inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlgenome.errors import InputError, UsageError
from dlgenome.model.checkpoint import LoadedModel
from dlgenome.model.inputs import LAYOUTS, InputForm, adapt

LENGTH = 12


def loaded(module: nn.Module) -> LoadedModel:
    return LoadedModel(module.eval(), "test", {}, LENGTH, "0" * 64, 0, "state-dict", ())


def random_sequences() -> Tensor:
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (3, LENGTH)))
    return nn.functional.one_hot(codes, 4).transpose(1, 2).float()


class Weighted(nn.Module):
    """Sum of the input times fixed weights of one shape; runs on that shape only."""

    weight: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.arange(4.0 * LENGTH).reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.weight.shape:
            raise RuntimeError("wrong shape")
        return (x * self.weight).flatten(1).sum(1, keepdim=True)


SHAPES = {
    "4xL": (4, LENGTH),
    "Lx4": (LENGTH, 4),
    "4x1xL": (4, 1, LENGTH),
    "4xLx1": (4, LENGTH, 1),
    "1x4xL": (1, 4, LENGTH),
    "Lx1x4": (LENGTH, 1, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_found_and_puts_every_base_where_the_model_expects_it(layout: str) -> None:
    module, x = Weighted(SHAPES[layout]), random_sequences()
    adapted = adapt(loaded(module), InputForm(), LENGTH)
    axes = [["base", "length", "one"].index(axis) for axis in LAYOUTS[layout]]
    weight = module.weight if "one" in LAYOUTS[layout] else module.weight.unsqueeze(-1)
    order = axes if "one" in LAYOUTS[layout] else [*axes, 2]
    by_base = weight.permute([order.index(axis) for axis in range(3)])[..., 0]
    torch.testing.assert_close(adapted.module(x)[:, 0], (x * by_base).sum((1, 2)))


def test_the_usual_layout_needs_no_adapter() -> None:
    model = loaded(Weighted((4, LENGTH)))
    assert adapt(model, InputForm(), LENGTH) is model


def test_alphabet_names_the_rows_of_the_model() -> None:
    x, module = random_sequences(), Weighted((4, LENGTH))
    adapted = adapt(loaded(module), InputForm(alphabet="AGCT"), LENGTH)
    torch.testing.assert_close(adapted.module(x), module(x[:, [0, 2, 1, 3]]))
    assert adapted.root == "model"
    assert "bases in the order AGCT" in adapted.notes


class WithControls(nn.Module):
    def forward(self, x: Tensor, controls: Tensor, covariate: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True) * covariate + controls.flatten(1).sum(1, keepdim=True)


def test_extra_inputs_are_given_to_every_sequence_in_order(tmp_path: Path) -> None:
    controls = np.arange(2.0 * LENGTH).reshape(2, LENGTH)
    np.save(tmp_path / "controls.npy", controls)
    form = InputForm(extra=(str(tmp_path / "controls.npy"), "0.5"))
    adapted = adapt(loaded(WithControls()), form, LENGTH)
    expected = torch.full((3, 1), LENGTH * 0.5 + controls.sum())
    torch.testing.assert_close(adapted.module(random_sequences()), expected)


def test_zeros_and_ones_have_the_shape_asked_for() -> None:
    adapted = adapt(loaded(WithControls()), InputForm(extra=("ones:2,3", "zeros:1")), LENGTH)
    torch.testing.assert_close(adapted.module(random_sequences()), torch.full((3, 1), 6.0))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (InputForm(alphabet="ACGU"), "four bases in the model's order"),
        (InputForm(alphabet="AACG"), "four bases in the model's order"),
        (InputForm(layout="4"), "choose auto, 4xL"),
        (InputForm(extra=("zeros:2,x",)), "write a shape such as zeros:2,2114"),
        (InputForm(extra=("inf",)), "must be finite"),
    ],
)
def test_forms_that_make_no_sense_say_what_to_write(form: InputForm, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        adapt(loaded(WithControls()), form, LENGTH)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([{"a": 1}], dtype=object), r"it holds values of the kind object instead of numbers"),
        (np.array(["words"]), "instead of numbers"),
        (np.array([1 + 2j]), "instead of numbers"),
        (np.array([1e300]), "not finite as float32"),
        (np.array([np.nan]), "not finite as float32"),
    ],
)
def test_extra_input_files_must_hold_numbers(tmp_path: Path, content: Any, message: str) -> None:
    np.save(tmp_path / "x.npy", content)
    with pytest.raises(InputError, match=f"--extra-input .*{message}"):
        adapt(loaded(WithControls()), InputForm(extra=(str(tmp_path / "x.npy"),)), LENGTH)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(-1,)", "(2,2)"])
def test_extra_input_files_hold_what_they_claim(tmp_path: Path, shape: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    content = (tmp_path / "x.npy").read_bytes()
    claim = f"{shape}, }}".encode()
    found = b"(3,), }"
    changed = content.replace(found + b" " * (len(claim) - len(found)), claim.ljust(len(found)))
    assert changed != content
    (tmp_path / "x.npy").write_bytes(changed)
    with pytest.raises(InputError, match="it claims the shape"):
        adapt(loaded(WithControls()), InputForm(extra=(str(tmp_path / "x.npy"),)), LENGTH)


@pytest.mark.parametrize("text", ["zeros:1000000,1000000", "ones:-1", "zeros:99999999999999999999"])
def test_shapes_that_no_input_has_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no input of a model has such a shape"):
        adapt(loaded(WithControls()), InputForm(extra=(text,)), LENGTH)
