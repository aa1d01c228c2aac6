"""Runs side by side: what differs, what forbids a comparison, and the figures; both kinds of run, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import generated_lab
import generated_run
import pytest

from gateway import cli
from gateway.reports.compare import Facts, compare, read, render


def facts(name: str, loads: tuple[str, ...] = ("l",), **made: str) -> Facts:
    figures = {(load, "a", "p50"): ("1 ms", "0.9 to 1.1 ms") for load in loads}
    return Facts(name, {"kind of run": "lab: comparison", "model": "m", **made}, frozenset(loads), figures)


@pytest.mark.parametrize(
    ("other", "forbidden"),
    [
        (facts("b"), []),
        (facts("b", version="2"), []),  # a version may be what is compared
        (facts("b", model="n"), ["model"]),
        (facts("b", loads=("k",)), ["load"]),
        (facts("b", **{"kind of run": "live split"}), ["kind of run"]),
        (facts("b", loads=("l", "k")), []),
    ],
)
def test_what_must_not_be_compared(other: Facts, forbidden: list[str]) -> None:
    found = compare([facts("a"), other])
    assert [one["key"] for one in found["must_not"]] == forbidden
    assert found["comparable"] is not bool(forbidden)


def test_what_differs_and_what_a_run_does_not_have() -> None:
    found = compare([facts("a"), facts("b", loads=("l", "k"), threads="2")])
    assert found["differs"] == [{"key": "threads", "values": ["not told", "2"]}]
    assert found["figures"][-1]["values"] == [["", "not in this run"], ["1 ms", "0.9 to 1.1 ms"]]


def test_the_command_over_both_kinds_of_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / ".abgate" / "runs"
    for seed in (1, 2):
        generated_lab.write(runs / f"lab-{seed}", rows=2000, starts=2, seed=seed)
    generated_run.write(runs / "live", rows=1000)
    config = str(tmp_path / "abgate.yaml")
    out = tmp_path / "compared.html"
    assert cli.run(["compare", "lab-1", "lab-2", "-c", config, "--out", str(out)]) == 0
    assert "p50, service" in capsys.readouterr().out
    assert json.loads(out.with_suffix(".json").read_text())["comparable"] is True
    assert cli.run(["compare", "lab-1", "live", "-c", config]) == 2
    assert "must not be compared: kind of run" in capsys.readouterr().out
    assert cli.run(["compare", "lab-1", "-c", config]) == 3
    assert cli.run(["compare", "lab-1", "nothing", "-c", config]) == 3


def test_the_page_escapes_names() -> None:
    page = render(compare([facts("<script>"), facts("b")]))
    assert "<script>" not in page
    assert read.__doc__
