"""Whole reports of generated lab runs: both schemas, verdict and checks, an offline page, figures as CSV, broken runs."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import generated_lab
import jsonschema
import pytest

from gateway.errors import ConfigError
from gateway.reports import build_report
from gateway.reports.lab.shape import over_starts

FOLDER = resources.files("gateway.reports.lab")
LAB = json.loads(FOLDER.joinpath("lab.schema.json").read_text(encoding="utf-8"))
REPORT = json.loads(FOLDER.joinpath("report.schema.json").read_text(encoding="utf-8"))


def report(run: Path) -> tuple[dict[str, Any], str]:
    """Build the report; the JSON is checked against the schema every time."""
    paths = build_report(run)
    document = json.loads(paths.json.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(REPORT).validate(document)
    assert paths.verdict_exit_code == document["summary"]["exit_code"]
    return document, paths.html.read_text(encoding="utf-8")


def table(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def states(document: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in document["summary"]["checks"]}


@pytest.mark.parametrize("kind", ["comparison", "sweep", "slo", "batching", "claims"])
def test_every_kind_has_a_page_that_opens_offline_and_its_figures_as_csv(tmp_path: Path, kind: str) -> None:
    run = generated_lab.write(tmp_path / "run", kind, rows=4000, starts=1)
    jsonschema.Draft202012Validator(LAB).validate(json.loads((run / "lab.json").read_text(encoding="utf-8")))
    document, page = report(run)
    assert not re.search(r"<(script|link|img|iframe)|https?://|@import", page)
    assert document["summary"]["question"] in html.unescape(page)
    assert page.count('role="img"') == page.count("<desc ") == page.count("<title ")
    assert "the ranking may reverse on a GPU" in page
    names = [figure["name"] for figure in document["figures"]]
    assert len(names) == len(set(names))
    for figure in document["figures"]:
        if figure["csv"] is not None:
            rows = table(run / figure["csv"])
            assert len(rows) > 1
            assert {len(row) for row in rows} == {len(rows[0])}
    assert len(table(run / "csv" / "blocks.csv")) == 1 + len(document["blocks"])


def test_claims_show_what_changed_versions_cost_and_where_a_requests_time_goes(tmp_path: Path) -> None:
    run = generated_lab.write(tmp_path / "run", "claims", rows=4000, starts=1)
    document, page = report(run)
    told = {figure["name"]: figure for figure in document["figures"]}
    changes, worker = told["changes-hot-swap-1"], told["worker-worker-overhead"]
    assert "added, made default, removed" in html.unescape(page)
    assert "1 of 4200 requests failed; the worst second's p99 was 34.0 ms" in html.unescape(page)
    assert table(run / changes["csv"])[0] == ["start", "second", "requests", "failed", "p50 ms", "p99 ms"]
    assert len(table(run / changes["csv"])) == 1 + 3 * 14
    rows = {(part, start): float(ms) for part, start, ms in table(run / worker["csv"])[1:]}
    for start in "123456":  # the parts are the whole
        parts = [ms for (part, of), ms in rows.items() if of == start and part != "the whole request"]
        assert sum(parts) == pytest.approx(rows["the whole request", start])
        assert len(parts) == 4


def test_a_comparison_stands_as_the_lab_judged_it(tmp_path: Path) -> None:
    run = generated_lab.write(tmp_path / "run", rows=40_000, scenario="worse")
    document, page = report(run)
    primary = next(one for one in document["comparisons"] if one["primary"])
    assert primary["verdict"] == "A better"
    assert f"{primary['value']:.3f}" in page
    assert document["summary"]["sentence"] in html.unescape(page)
    assert states(document)["starts"] == states(document)["schedule kept"] == "ok"
    condition = next(one for one in document["conditions"] if one["name"].endswith("8 at a time"))
    p50 = condition["arms"]["tfserving"]["service_ms"]["p50"]
    assert p50["min"] <= p50["low"] < p50["value"] < p50["high"]
    assert p50["starts"] == 6


@pytest.mark.parametrize(
    ("scenario", "check", "state"),
    [
        ("late", "schedule kept", "inconclusive"),
        ("biased", "A/A", "inconclusive"),
        ("cut", "run complete", "inconclusive"),
    ],
)
def test_what_spoils_a_run_is_said(tmp_path: Path, scenario: str, check: str, state: str) -> None:
    document, page = report(generated_lab.write(tmp_path / "run", rows=20_000, scenario=scenario))
    assert states(document)[check] == state
    assert document["summary"]["exit_code"] == 2
    assert {"late": "INVALID.", "biased": "BIASED", "cut": "cut short"}[scenario] in page


def test_below_the_floor_a_quantile_is_not_told(tmp_path: Path) -> None:
    document, page = report(generated_lab.write(tmp_path / "run", scenario="thin"))
    p99 = document["conditions"][0]["arms"]["torchserve"]["service_ms"]["p99"]
    assert "p99 needs 662" in p99["missing"]
    assert p99["missing"] in html.unescape(page)


def test_missing_blocks_and_broken_files_are_listed(tmp_path: Path) -> None:
    run = generated_lab.write(tmp_path / "run", rows=4000, starts=1)
    first, second = sorted((run / "blocks").iterdir())[:2]
    (first / "requests.parquet").unlink()
    (second / "requests.parquet").write_bytes(b"PAR1")
    document, _ = report(run)
    assert [line.partition(":")[0] for line in document["missing"]] == [first.name, second.name]


def test_a_document_that_says_next_to_nothing_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "lab.json").write_text('{"format": 1, "kind": "comparison", "complete": false}', encoding="utf-8")
    document, page = report(tmp_path)
    assert document["summary"]["exit_code"] == 2
    assert "cut short" in page
    (tmp_path / "lab.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ConfigError, match="no JSON object"):
        build_report(tmp_path)


def test_arms_whose_servers_never_came_up_are_shown_as_planned(tmp_path: Path) -> None:
    arm = {
        "kind": "torchserve",
        "variant": "torchscript",
        "threads": 1,
        "workers": 1,
        "cores": None,
        "path": "x",
        "role": "arm",
    }
    document = {"format": 1, "kind": "slo", "complete": False, "arms": {"a": arm}, "blocks": [], "results": {}}
    (tmp_path / "lab.json").write_text(json.dumps(document), encoding="utf-8")
    told, page = report(tmp_path)
    assert told["arms"]["a"]["implementation"] is None
    assert "torchscript" in page


def test_names_from_the_run_are_escaped(tmp_path: Path) -> None:
    run = generated_lab.write(tmp_path / "run", rows=2000, starts=1)
    text = (run / "lab.json").read_text(encoding="utf-8").replace("tfserving", "<b>x")
    (run / "lab.json").write_text(text, encoding="utf-8")
    _, page = report(run)
    assert "<b>x" not in page


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(0, 2.0, ""), (1, 8.0, "")], {"value": 4.0, "starts": 2, "min": 2.0, "max": 8.0}),
        ([(0, 2.0, ""), (0, 8.0, "")], {"value": 4.0, "starts": 1, "low": None}),
        ([(0, 2.0, ""), (1, None, "too few")], {"missing": "start 1: too few"}),
        ([], {"missing": "no block"}),
        ([(0, 0.0, ""), (1, 2.0, "")], {"value": 1.0, "low": None}),
    ],
)
def test_one_figure_for_several_starts(values: list[tuple[int, float | None, str]], expected: dict[str, Any]) -> None:
    found = over_starts(values)
    assert {
        key: pytest.approx(found[key]) if isinstance(value, float) else found[key] for key, value in expected.items()
    } == expected
