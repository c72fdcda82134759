"""Products rounded as CUDA devices round them: against DeepLIFT with products that are rounded by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

pytest.importorskip(
    "benchmarks", reason="the benchmarks are in the checkout only, not in the installed package"
)

from benchmarks.imitation import Products, as_tf32, imitated
from dlgenome.attribution import convolving, onednn
from dlgenome.attribution.capture import capture
from dlgenome.attribution.deeplift import DeepLift
from dlgenome.attribution.lowering import Program, lower
from dlgenome.attribution.narrow import with_narrow_products
from dlgenome.encoding import one_hot

LENGTH, SEQUENCES, REFERENCES = 60, 2, 3
Codes = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Round = Callable[[Tensor], Tensor]
Product = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def eleven_digits(value: Tensor) -> Tensor:
    """The nearest numbers of eleven binary digits, from what digits are."""
    fraction, exponent = np.frexp(value.detach().double().numpy())
    digits = np.trunc(fraction * 2**11 + np.copysign(0.5, fraction))
    return torch.from_numpy(np.ldexp(digits, exponent - 11).astype(np.float32))


def as_bfloat16(value: Tensor) -> Tensor:
    return value.bfloat16().float()


def as_it_is(value: Tensor) -> Tensor:
    return value


class ByHand(torch.autograd.Function):
    """A product of a value and weights: operands are rounded there and back, and what comes back."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, product: Product, *rounds: Round) -> Tensor:
        there, ctx.back, ctx.returned = rounds
        ctx.weight, ctx.product, ctx.shape = weight, product, value.shape
        return product(there(value), there(weight))

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> Any:
        with torch.enable_grad():
            blank = torch.zeros(ctx.shape, requires_grad=True)
            made = ctx.product(blank, ctx.back(ctx.weight))
        [found] = torch.autograd.grad(made, blank, ctx.back(multipliers[0]))
        return (ctx.returned(found), *[None] * 5)


class Rescale(torch.autograd.Function):
    """ReLU of a sequence and its reference; back goes the difference that it makes over the one it gets."""

    @staticmethod
    def forward(ctx: Any, pair: Tensor) -> Tensor:
        ctx.save_for_backward(pair)
        return pair.relu()

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> Tensor:
        [pair] = ctx.saved_tensors
        given, made = pair[0] - pair[1], pair[0].relu() - pair[1].relu()
        return multipliers[0] * torch.where(given.abs() < 1e-6, (pair[0] > 0).float(), made / given)


class Residual(nn.Module):
    """``x + relu(convolution(x))``."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(32, 32, 3, padding=dilation, dilation=dilation)
        self.relu = nn.ReLU()

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = value + self.relu(self.convolution(value))
        return result


class Mixing(nn.Module):
    """A product of matrices: all rows with one, or each row with its own, which are alike."""

    def __init__(self, *, apart: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.apart = nn.Parameter(torch.randn(32, 32) / 6), None, apart

    def forward(self, value: Tensor) -> Tensor:
        weight = self.weight.expand(value.shape[0], -1, -1) if self.apart else self.weight
        return torch.matmul(value.transpose(1, 2), weight).transpose(1, 2)


class Shifted(nn.Module):
    """A value and a convolution of what no sequence changes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.places = nn.Conv1d(32, 32, 3, padding=1), nn.Parameter(torch.randn(1, 32, 56))

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = value + self.convolution(5 * self.places)
        return result


class OfTwoAxes(nn.Conv2d):
    """A convolution of two axes, the first of which has one place."""

    def forward(self, value: Tensor) -> Tensor:
        return super().forward(value.unsqueeze(2)).squeeze(2)


def product_of(module: nn.Module) -> Product:
    """A module as a function of its value and its weights, without its bias."""
    if isinstance(module, OfTwoAxes):
        return lambda value, weight: module._conv_forward(value.unsqueeze(2), weight, None).squeeze(2)
    if isinstance(module, nn.Conv1d):
        return lambda value, weight: module._conv_forward(value, weight, None)
    if isinstance(module, nn.ConvTranspose1d):
        return lambda value, weight: F.conv_transpose1d(value, weight, None, module.stride)
    if isinstance(module, Mixing):
        return lambda value, weight: torch.matmul(value.transpose(1, 2), weight).transpose(1, 2)
    return F.linear


class Twin:
    """DeepLIFT of one pair at a time, by automatic differentiation."""

    def __init__(self, network: nn.Sequential, products: Products) -> None:
        self.network, self.products = network, products

    def scores(self, codes: Codes, references: Codes) -> Floats:
        """(sequences, 4, length) hypothetical contributions."""
        made = []
        for sequence, others in zip(one_hot(codes), one_hot(references), strict=True):
            pairs = [torch.from_numpy(np.stack([sequence, other])).float() for other in others]
            made.append(torch.stack([self._pair(pair) for pair in pairs]).mean(0).numpy())
        return np.stack(made)

    def _pair(self, pair: Tensor) -> Tensor:
        value = pair.requires_grad_()
        *modules, last = self.network
        for module in modules:
            value = self._applied(module, value)
        output = last(value)  # which is not rounded: dlgenome has it in float64
        [found] = torch.autograd.grad(output[0].sum(), pair)
        multiplier: Tensor = found[0]
        return multiplier - (multiplier * pair[1].detach()).sum(0)

    def _applied(self, module: nn.Module, value: Tensor) -> Tensor:
        made: Tensor
        if isinstance(module, Residual):
            return value + self._applied(module.relu, self._applied(module.convolution, value))
        if isinstance(module, Shifted):
            return value + self._product(module.convolution, 5 * module.places.detach())
        if isinstance(module, nn.ReLU):
            made = Rescale.apply(value)  # type: ignore[no-untyped-call]
        elif hasattr(module, "weight"):
            made = self._product(module, value)
        else:
            made = module(value)
        return made

    def _product(self, module: Any, value: Tensor) -> Tensor:
        weight, bias = module.weight.detach(), module.bias
        made: Tensor = ByHand.apply(value, weight, product_of(module), *self._rounds(module))  # type: ignore[no-untyped-call]
        return made if bias is None else made + bias.view(-1, *[1] * (made.dim() - 2))

    def _rounds(self, module: Any) -> tuple[Round, Round, Round]:
        """Of what goes in there, of what goes in back, and of what comes out back."""
        if self.products == "all":
            return eleven_digits, eleven_digits, as_it_is
        if isinstance(module, (nn.Linear, Mixing)):
            return as_it_is, as_it_is, as_it_is
        never_narrow = isinstance(module, nn.ConvTranspose1d) or module.padding == "same"
        if never_narrow or min(module.weight.shape[:2]) < 16:
            return eleven_digits, eleven_digits, as_it_is
        return eleven_digits, as_bfloat16, as_bfloat16


def between(*modules: nn.Module, channels: int = 32) -> nn.Sequential:
    """A network of a convolution, what is tried, and one number from the mean over positions."""
    first = nn.Conv1d(4, channels, 5), nn.ReLU()
    last = nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.LazyLinear(1)
    network = nn.Sequential(*first, *modules, *last).eval()
    with torch.no_grad():
        network(torch.zeros(1, 4, LENGTH))
    return network


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "first": between,
    "of many channels": lambda: between(nn.Conv1d(96, 96, 7, padding=3), channels=96),
    "dilated": lambda: between(nn.Conv1d(32, 32, 3, padding=4, dilation=4)),
    "far": lambda: between(nn.Conv1d(32, 32, 3, padding=2048, dilation=2048)),
    "strided": lambda: between(nn.Conv1d(32, 32, 3, stride=2)),
    "grouped": lambda: between(nn.Conv1d(32, 32, 3, groups=2)),
    "padded on one side": lambda: between(nn.Conv1d(32, 32, 4, padding="same")),
    "of two axes": lambda: between(OfTwoAxes(32, 32, (1, 3), padding=(0, 1))),
    "to few": lambda: between(nn.Conv1d(32, 4, 9)),
    "from few": lambda: between(nn.Conv1d(32, 2, 1), nn.ReLU(), nn.Conv1d(2, 32, 17)),
    "transposed": lambda: between(nn.ConvTranspose1d(32, 32, 4, stride=2)),
    "residual": lambda: between(Residual(2), Residual(4), Residual(8)),
    "dense": lambda: between(nn.Flatten(), nn.Linear(32 * 56, 24), nn.ReLU(), nn.Unflatten(1, (8, 3))),
    "of a constant": lambda: between(Shifted()),
    "matrices": lambda: between(Mixing(apart=False)),
    "matrices of rows": lambda: between(Mixing(apart=True)),
}


def drawn(*shape: int) -> Codes:
    return np.random.default_rng(len(shape)).integers(0, 4, shape).astype(np.uint8)


def explained(program: Program, codes: Codes, references: Codes) -> Floats:
    lift = DeepLift(program, targets=1, n_references=REFERENCES, batch_size=REFERENCES)
    [made] = lift.explain(codes, references)
    return made.hypothetical


def norm(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("products", ["all", "convolutions"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_product_is_rounded_wherever_it_stands(kind: str, products: Products) -> None:
    """Sums in another order round a few numbers to others, so that the two are not equal to the bit."""
    torch.manual_seed(1)
    network = NETWORKS[kind]()
    codes, references = drawn(SEQUENCES, LENGTH), drawn(SEQUENCES, REFERENCES, LENGTH)
    program = lower(capture(network, (4, LENGTH)))
    plain = explained(program, codes, references)
    with imitated(products):
        narrow = with_narrow_products(program) if products == "convolutions" else program
        found = explained(narrow, codes, references)
    expected = Twin(network, products).scores(codes, references)
    assert norm(expected - plain) > 3e-4 * norm(plain)
    assert norm(found - expected) < 0.2 * norm(expected - plain)
    np.testing.assert_array_equal(explained(program, codes, references), plain, "nothing stays switched off")


def test_steps_in_other_threads_are_rounded_too() -> None:
    torch.manual_seed(1)
    codes, references = drawn(4, LENGTH), drawn(4, REFERENCES, LENGTH)
    program = lower(capture(between(Residual(2)), (4, LENGTH)))
    with imitated("all"):
        alone = explained(program, codes, references)
        torch.set_num_threads(2)
        together = explained(program, codes, references)
    np.testing.assert_array_equal(together, alone)


def test_a_convolution_that_is_not_known_is_refused() -> None:
    """oneDNN's, which adds to what is there, is one unless it is switched off."""
    if not onednn._works():
        pytest.skip("this torch has no convolution that adds to what is there")
    torch.manual_seed(1)
    program = lower(capture(between(Residual(2)), (4, LENGTH)))
    codes, references = drawn(SEQUENCES, LENGTH), drawn(SEQUENCES, REFERENCES, LENGTH)
    with imitated("all"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolving, "convolve_onto", onednn.convolve_onto)
        with pytest.raises(AssertionError, match="_convolution_pointwise_"):
            explained(program, codes, references)


def test_any_number_is_rounded_as_its_digits_say() -> None:
    numbers = torch.randn(5, 7, 11) * torch.logspace(-20, 20, 11)
    turned = numbers.transpose(0, 2)
    assert torch.equal(as_tf32(turned), eleven_digits(turned))
    for kind in (torch.float64, torch.bfloat16):
        assert as_tf32(numbers.to(kind)).equal(numbers.to(kind))
