"""Logos: a readable picture comes out, with the letters, spans and coordinates where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from dlgenome.plotting.logos import LogoPanel, Span, _draw, _limits, plot_regions, zoomed


def panel(heights: list[tuple[int, float]], start: int = 1000, spans: tuple[Span, ...] = ()) -> LogoPanel:
    contributions = np.zeros((4, len(heights)), dtype=np.float32)
    for position, (base, height) in enumerate(heights):
        contributions[base, position] = height
    return LogoPanel(contributions, "chrA", start, spans, "a peak")


MIXED = [(0, 0.5), (1, -0.3), (2, 0.1), (3, 0.9)]


def test_a_picture_of_readable_size_with_every_base_colour_is_written(tmp_path: Path) -> None:
    path = tmp_path / "logos.png"
    one = panel(MIXED, spans=(Span(1001, 1003, "GATA1", "+"),))
    plot_regions([one, panel(MIXED, 5000)], path, title="Top regions")
    picture = imread(path)
    assert picture.shape[1] > 1500
    assert picture.shape[0] > 500
    for colour in ("109648", "255C99", "F7B32B", "D62839"):
        rgb = np.array([int(colour[index : index + 2], 16) for index in (0, 2, 4)]) / 255
        assert (np.abs(picture[..., :3] - rgb).max(axis=2) < 0.01).sum() > 50, colour


def test_letters_stand_on_their_position_and_negative_ones_hang_below() -> None:
    ax = Figure().subplots()
    one = panel(MIXED, spans=(Span(1001, 1003, "GATA1", "-"),))
    _draw(ax, one, _limits([one]), {"GATA1": "#123456"})
    boxes = [letter.get_path().get_extents() for letter in ax.patches if letter.get_zorder() >= 0]
    boxes = sorted(boxes, key=lambda box: float(box.x0))
    assert [round(float(box.x0 + box.x1) / 2) for box in boxes] == [1000, 1001, 1002, 1003]
    assert [float(box.y0) >= 0 for box in boxes] == [True, False, True, True]
    assert float(boxes[1].y1) <= 0
    assert [text.get_text() for text in ax.texts] == ["◂ GATA1"]
    assert ax.get_xlim() == (999.5, 1003.5)
    assert "chrA:1,000-1,004" in ax.get_title(loc="left")


def test_all_panels_share_one_scale_that_holds_every_letter() -> None:
    low, high = _limits([panel([(0, 2.0)]), panel([(1, -1.0)])])
    assert low < -1.0
    assert high > 2.0


@pytest.mark.parametrize("seed", range(5))
def test_zooming_finds_the_stretch_that_contributes_most(seed: int) -> None:
    generator = np.random.default_rng(seed)
    bases, signed = generator.integers(0, 4, 60), generator.normal(size=60)
    whole = panel([(int(base), float(height)) for base, height in zip(bases, signed, strict=True)])
    near = zoomed(whole, 13)
    best = max(range(60 - 13 + 1), key=lambda first: sum(abs(signed[first : first + 13])))
    assert (near.start, near.end) == (1000 + best, 1000 + best + 13)
    np.testing.assert_array_equal(near.contributions, whole.contributions[:, best : best + 13])


def test_zooming_keeps_the_spans_in_sight_and_only_those() -> None:
    heights = [(0, 0.0)] * 60 + [(1, -5.0)] * 20 + [(0, 0.0)] * 20
    spans = (
        Span(1005, 1010, "far"),
        Span(1050, 1060, "just outside"),
        Span(1055, 1061, "half"),
        Span(1068, 1072, "near"),
        Span(1080, 1085, "just after"),
    )
    near = zoomed(panel(heights, spans=spans), 20)
    assert (near.start, near.end) == (1060, 1080)
    assert [span.label for span in near.spans] == ["half", "near"]


@pytest.mark.parametrize("strongest", [0, 99])
def test_zooming_at_an_edge_stays_inside(strongest: int) -> None:
    heights = [(0, 0.1)] * 100
    heights[strongest] = (2, 3.0)
    near = zoomed(panel(heights), 30)
    assert near.contributions.shape == (4, 30)
    assert near.contributions.max() == 3.0
    whole = panel(heights)
    assert zoomed(whole, 100) is whole


def test_nothing_to_draw_and_flat_scores_do_not_break(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no region"):
        plot_regions([], tmp_path / "none.png")
    plot_regions([panel([(0, 0.0)] * 5)], tmp_path / "flat.png")
    assert (tmp_path / "flat.png").stat().st_size > 0
