"""How numbers are written, and how a drawing places them."""

from __future__ import annotations

import math
import re

import pytest

from gateway.reports.html import show
from gateway.reports.svg import WIDE, Drawing, Scale, linear_ticks, log_ticks
from gateway.reports.words import count, headline, listing, milliseconds, percent, significant, size, span


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (12.345, "12.3"),
        (5.1, "5.10"),
        (0.004123, "0.00412"),
        (1234.5, "1230"),
        (99.96, "100"),
        (-2.5, "-2.50"),
    ],
)
def test_significant(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ms"),
        (0.05, "50 µs"),
        (2.94, "2.94 ms"),
        (-0.868, "-0.868 ms"),
        (9999.0, "10000 ms"),
        (12_345.0, "12.3 s"),
    ],
)
def test_milliseconds(value: float, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0%"), (1.0, "100%"), (0.01, "1%"), (0.50651, "50.65%"), (1.7e-5, "0.002%"), (0.9999999, "100.00%")],
)
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


def test_small_words() -> None:
    assert count(19963.4) == "19\u202f963"
    assert (size(92 * 2**20), size(3 * 2**30)) == ("92 MiB", "3.00 GiB")
    assert (listing([]), listing(["a"]), listing(["a", "b", "c"])) == ("", "a", "a, b and c")
    assert span(2.91, 2.97, milliseconds) == "2.91 to 2.97 ms"
    assert span(0.05, 2.97, milliseconds) == "50 µs to 2.97 ms"
    assert span(0.1, 0.2, percent) == "10 to 20%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not told"),
        ({"not_computable": "gone"}, "n/a (gone)"),
        ({"a_b": 1, "c": None}, "a b 1, c none"),
        ([], "none"),
        ([1, 0.25], "1, 0.25"),
        (True, "yes"),
        ("x", "x"),
    ],
)
def test_show(value: object, text: str) -> None:
    assert show(value) == text


def arm(name: str, requests: int, failed: int = 0) -> dict[str, object]:
    estimates = {"p50": {"value": 2.0}, "p99": {"not_computable": "few"}}
    return {
        "name": name, "requests": requests, "errors": {"count": failed}, "accuracy": {"judged": 10, "right": 9},
        "latency_ms": {"answered": estimates},
    }  # fmt: skip


def test_headline_tells_what_there_is() -> None:
    assert headline(20.0, [arm("a", 60), arm("b", 40)], 90) == (
        "In 20.0 s, 100 requests from 90 users were split: 60% to a and 40% to b. None failed. Checked answers were right: "
        "90% on a and 90% on b. Of the answers, half came within 2.00 ms on a and 2.00 ms on b."
    )
    assert "10 failed: 25% on a" in headline(20.0, [arm("a", 40, 10)], 0)
    told = headline(20.0, [arm("a", 60), arm("b", 40)], 90, lost=1500)
    assert "None of these failed; 1\u202f500 more failed before an arm was known." in told
    assert "10 failed: 25% on a; 3 more failed" in headline(20.0, [arm("a", 40, 10)], 0, lost=3)
    assert headline(20.0, [arm("a", 0)], 0, lost=3).startswith("All 3 requests failed before an arm was known")
    assert headline(None, [], 0).startswith("No request")
    assert headline(20.0, [arm("a", 0)], 0).startswith("No request")


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [(0, 10, 6, [0, 2, 4, 6, 8, 10]), (0, 5.6, 5, [0, 2, 4]), (0, 0.7, 5, [0, 0.2, 0.4, 0.6]), (3, 3, 5, [3])],
)
def test_linear_ticks(low: float, high: float, most: int, ticks: list[float]) -> None:
    assert linear_ticks(low, high, most) == pytest.approx(ticks)


def test_log_ticks_thin_out() -> None:
    assert log_ticks(0.9, 25, 8) == pytest.approx([1, 2, 5, 10, 20])
    assert log_ticks(0.01, 2000, 6) == pytest.approx([0.01, 0.1, 1, 10, 100, 1000])


def test_scales_and_gaps() -> None:
    assert Scale(0, 10, 100, 200)(2.5) == 125
    assert Scale(1, 100, 0, 100, math.log10)(10) == 50
    assert Scale(5, 5, 0, 100)(5) == 50
    drawing = Drawing(WIDE)
    drawing.line([(0, 0), (1, 1), None, (2, 2), (3, 3)], "line")
    assert drawing.parts == ['<path class="line" d="M0.0 0.0L1.0 1.0M2.0 2.0L3.0 3.0"/>']
    drawing.band([(0, 0), None, (2, 2)], [(0, 5), (1, 5), (2, 5)], "band")
    assert len(drawing.parts) == 3
    text = Drawing(WIDE, ["<text>a</text>"]).render("n", "a < b", "c & d")
    assert re.search(r'aria-labelledby="n-t n-d"><title id="n-t">a &lt; b</title><desc id="n-d">c &amp; d</desc>', text)
