"""Plots: well-formed SVG whose marks stand where the numbers say, and whose texts are only texts."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from pgembed.evaluation.charts import Series, histogram, intervals, lines, standalone

SVG = "{http://www.w3.org/2000/svg}"


def _marks(svg: str, tag: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall(f".//{tag}")  # noqa: S314 - our own drawing


def test_points_stand_where_their_values_say() -> None:
    svg = lines([Series("one", [(1, 0.5), (10, 0.75), (100, 1.0)])], x="effort", y="recall", log_x=True, level=0.9)
    circles = _marks(svg, "circle")
    xs, ys = ([float(circle.attrib[name]) for circle in circles] for name in ("cx", "cy"))
    # decades are equally far apart on a logarithmic axis, and up is less in SVG
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert ys[0] > ys[2]
    (level,) = [line for line in _marks(svg, "line") if line.attrib.get("stroke-dasharray") == "3 4"]
    share = (ys[0] - float(level.attrib["y1"])) / (ys[0] - ys[2])
    assert share == pytest.approx((0.9 - 0.5) / 0.5, abs=0.01)


def test_values_that_cannot_be_drawn_are_left_out() -> None:
    series = Series("one", [(0, 1.0), (1, float("nan")), (2, 3.0), (4, float("inf")), (8, 5.0)])
    assert len(_marks(lines([series], x="x", y="y", log_x=True), "circle")) == 2
    assert lines([Series("none", [])], x="x", y="y") == ""
    assert len(_marks(lines([Series("one", [(3, 3)])], x="x", y="y"), "circle")) == 1


def test_the_histogram_counts_every_value_once_and_tells_gains_from_losses() -> None:
    values = [-1.0, -0.5, -0.5, 0.0, 0.0, 0.0, 0.01, 1.0]
    bars = _marks(histogram(values, x="difference", y="queries"), "rect")
    notes = [bar.findtext("title") or "" for bar in bars]
    counts = [int(note.rsplit(": ", 1)[1]) for note in notes]
    assert counts == [1, 2, 4, 1]
    assert len({bar.attrib["fill"] for bar in bars}) == 3
    lefts = [float(bar.attrib["x"]) for bar in bars]
    assert all(a < b for a, b in pairwise(lefts))
    assert histogram([0.0, 0.0], x="x", y="y").count("<rect") == 1
    assert histogram([], x="x", y="y") == ""


def test_intervals_reach_from_low_to_high() -> None:
    svg = intervals([("ndcg@10", [("a", 0.5, 0.25, 0.75), ("b", 0.6, 0.6, 0.6)])], title="means")
    widths = [
        float(line.attrib["x2"]) - float(line.attrib["x1"])
        for line in _marks(svg, "line")
        if line.attrib.get("stroke-width") == "2"
    ]
    axis = next(line for line in _marks(svg, "line") if line.attrib["y1"] == line.attrib["y2"])
    whole = float(axis.attrib["x2"]) - float(axis.attrib["x1"])
    assert widths == pytest.approx([whole / 2, 0], abs=0.2)


def test_series_differ_by_more_than_their_hue() -> None:
    svg = lines([Series(name, [(1, 2), (3, 4)]) for name in "abc"], x="x", y="y")
    assert {"circle", "rect", "polygon"} <= {element.tag for element in ElementTree.fromstring(svg).iter()}  # noqa: S314
    dashes = [line.attrib["stroke-dasharray"] for line in _marks(svg, "polyline")]
    assert len(set(dashes)) == 3


@pytest.mark.parametrize("hostile", ["</svg><script>alert(1)</script>", '" onload="x', "a & b < c"])
def test_texts_stay_texts(hostile: str) -> None:
    drawn = [
        lines([Series(hostile, [(1, 2)], [hostile]), Series("b", [(1, 3)])], x=hostile, y=hostile, title=hostile),
        intervals([(hostile, [(hostile, 0.1, 0.1, 0.2)])], title=hostile),
        histogram([1.0], x=hostile, y=hostile, title=hostile),
    ]
    for svg in drawn:
        root = ElementTree.fromstring(svg)  # noqa: S314
        assert root.attrib["aria-label"] == hostile
        assert not [element for element in root.iter() if element.tag == "script" or "onload" in element.attrib]
        assert hostile[:20] in "".join(root.itertext())


def test_a_file_of_its_own_is_an_svg_document() -> None:
    root = ElementTree.fromstring(standalone(lines([Series("one", [(1, 2), (2, 3)])], x="x", y="y")))  # noqa: S314
    assert root.tag == f"{SVG}svg"
    assert root.findall(f".//{SVG}circle")
    assert re.fullmatch(r"0 0 \d+ \d+", root.attrib["viewBox"])
