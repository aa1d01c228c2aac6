"""Whole reports of generated run directories: exit codes, the published schema, a page that opens offline, broken runs."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import generated_run
import jsonschema
import pytest

from gateway.errors import ConfigError
from gateway.reports import ReportPaths, build_report
from gateway.reports.verdict import Comparison, check_same_answers
from gateway.stats.decision import Decision, Verdict
from gateway.stats.result import Difference, Interval, NotComputable

SCHEMA = json.loads(resources.files("gateway.reports").joinpath("report.schema.json").read_text(encoding="utf-8"))
VOID = {"meta", "br", "path", "line", "rect"}


def report(run: Path) -> tuple[ReportPaths, dict[str, Any]]:
    """Build the report; the JSON is checked against the schema every time."""
    paths = build_report(run)
    document = json.loads(paths.json.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    return paths, document


def states(document: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in document["summary"]["checks"]}


@pytest.mark.parametrize(
    ("scenario", "code", "troubled"),
    [
        ("calm", 0, {}),
        ("ramp", 0, {}),
        ("tiny", 0, {}),
        ("backend_dies", 1, {"errors of torchserve": "failed"}),
        ("wrong_answers", 1, {"answers of tfserving": "failed", "same answers: tfserving and torchserve": "failed"}),
        ("no_parity", 1, {"parity": "failed"}),
        ("skewed_split", 2, {"sample ratio": "inconclusive"}),
        ("killed", 2, {"run finished": "inconclusive"}),
    ],
)
def test_exit_codes_with_a_stand_in(tmp_path: Path, scenario: str, code: int, troubled: dict[str, str]) -> None:
    paths, document = report(generated_run.write(tmp_path / "run", scenario))
    assert paths.verdict_exit_code == document["summary"]["exit_code"] == code
    assert {name: state for name, state in states(document).items() if state in ("failed", "inconclusive")} == troubled
    assert paths.performance == document["summary"]["performance"]["line"] == "no verdict: stand-in"
    assert document["generated"] is True
    assert "Nothing in this report was measured" in paths.html.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scenario", "code", "line"),
    [
        ("calm", 0, r"mixed system: tfserving's p95 is [\d.]+ ms below torchserve's .*; no winner of capacity"),
        ("tiny", 2, "no verdict: too little data"),
        ("skewed_split", 2, "no verdict: sample ratio mismatch"),
        ("killed", 2, "no verdict: unfinished run"),
    ],
)
def test_a_live_split_of_two_real_servers_names_no_winner(tmp_path: Path, scenario: str, code: int, line: str) -> None:
    paths, document = report(generated_run.write(tmp_path / "run", scenario, stand_in=False))
    assert re.fullmatch(line, document["summary"]["performance"]["line"])
    assert document["summary"]["performance"]["names_winner"] is False
    assert all("verdict" not in difference["decision"] for difference in document["differences"])
    assert paths.verdict_exit_code == code


def test_the_numbers_are_the_generators(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    _, document = report(run)
    ledger, records = (f"'{run}/{name}/*.parquet'" for name in ("ledger", "records"))
    rows = duckdb.execute(
        f"""SELECT arm, count(*), count(DISTINCT unit), quantile_disc(latency_ns, 0.95) / 1e6 FROM {ledger}
        WHERE NOT warmup AND error = '' GROUP BY arm ORDER BY arm DESC"""
    ).fetchall()
    assert len(rows) == 2
    for arm, (name, requests, units, p95) in zip(document["arms"], rows, strict=True):
        assert (arm["name"], arm["requests"] - arm["errors"]["count"]) == (name, requests)
        assert arm["units"] == units
        assert arm["latency_ms"]["answered"]["p95"]["value"] == pytest.approx(p95)
        found = arm["latency_ms"]["answered"]["p95"]
        assert found["low"] < found["value"] < found["high"]
        assert arm["gateway_ms"]["records"] == arm["requests"]
    batches = duckdb.execute(f"SELECT sum(1.0 / batch_size) FROM {records} WHERE batch_size > 0").fetchone()
    assert batches is not None
    told = document["arms"][0]["batching"]["distributions"][0]
    assert (told["what"], told["source"]) == ("requests per batch", "told with each answer")
    assert 0.8 * float(batches[0]) < told["batches"] < float(batches[0])  # without the warm-up's share
    assert document["records"]["requests_without_record"] == 0
    assert document["srm"]["units"] == document["srm"]["units_seen"]
    assert sum(arm["units"] for arm in document["srm"]["arms"]) == document["srm"]["units"]
    (difference,) = document["differences"]
    assert difference["latency_ms"]["p95"]["value"] == pytest.approx(
        document["arms"][1]["latency_ms"]["all"]["p95"]["value"]
        - document["arms"][0]["latency_ms"]["all"]["p95"]["value"]
    )


def test_a_ramp_is_checked_phase_by_phase(tmp_path: Path) -> None:
    _, document = report(generated_run.write(tmp_path / "run", "ramp"))
    assert [phase["weights"] for phase in document["srm"]["phases"]] == [
        {"torchserve": 90, "tfserving": 10},
        {"torchserve": 50, "tfserving": 50},
    ]
    assert not document["srm"]["alarm"]


def test_a_dead_backend_shows_as_its_arms_errors(tmp_path: Path) -> None:
    paths, document = report(generated_run.write(tmp_path / "run", "backend_dies"))
    torchserve, tfserving = document["arms"]
    assert torchserve["errors"]["by_kind"] == [{"kind": "upstream_refused", "count": torchserve["errors"]["count"]}]
    assert torchserve["latency_ms"]["all"]["p99"] == {"not_computable": "more than 1% of the requests got no answer"}
    assert "value" in torchserve["latency_ms"]["answered"]["p95"]
    assert tfserving["errors"]["count"] == 0
    assert [event["what"].split()[-1] for event in document["events"]] == ["137)", "again"]
    assert sum(document["plots"]["over_time"]["arms"]["torchserve"]["errors"]) == torchserve["errors"]["count"]
    assert "backend torchserve died" in paths.html.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects tags and addresses, and fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("href", "src", "xlink:href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("scenario", "drawn"), [("backend_dies", 4), ("killed", 3), ("tiny", 4)])
def test_the_page_is_whole_and_needs_no_network(tmp_path: Path, scenario: str, drawn: int) -> None:
    paths, document = report(generated_run.write(tmp_path / "run", scenario))
    text = paths.html.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"https?://|url\(|@import", text)
    assert page.tags.count("title") == 1 + page.tags.count("svg") - text.count('aria-hidden="true"')
    assert text.count("<summary>The numbers</summary>") == text.count('<div class="wide">') == drawn
    for line in (document["summary"]["sentence"], "no verdict: stand-in", *document["not_tested"]):
        assert line.split("'")[0] in text


def test_the_figures_of_the_plots_are_csv(tmp_path: Path) -> None:
    _, document = report(generated_run.write(tmp_path / "run"))
    written = {
        path.stem: path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / "run" / "csv").glob("*")
    }
    assert set(written) == {"percentiles", "quantiles", "over-time", "batches"}
    bins = document["plots"]["over_time"]
    assert len(written["over-time"]) == 1 + len(bins["start_s"]) * len(bins["arms"])


def test_names_from_the_run_are_escaped(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    told["run_id"] = "<script>alert(1)</script>"
    told["events"] = [{"time_ns": told["window"]["start_ns"] + 10**9, "what": '"><img src=x onerror=alert(1)>'}]
    (run / "run.json").write_text(json.dumps(told), encoding="utf-8")
    paths, _ = report(run)
    text = paths.html.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text


def change(run: Path, **parts: Any) -> Path:
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for key, value in parts.items():
        told[key] = value
    (run / "run.json").write_text(json.dumps(told), encoding="utf-8")
    return run


def test_one_arm_past_the_gateway(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run", stand_in=False)
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    duckdb.execute(
        f"""COPY (SELECT * REPLACE ('' AS assignment, '' AS request_id) FROM '{run}/ledger/part-0.parquet'
        WHERE arm = 'torchserve') TO '{run}/ledger/direct.parquet'"""
    )
    (run / "ledger" / "part-0.parquet").unlink()
    (run / "records" / "part-0.parquet").unlink()
    change(run, kind="direct", arms={"torchserve": told["arms"]["torchserve"]}, gateway={})
    paths, document = report(run)
    assert document["summary"]["performance"]["line"] == "no verdict: one arm"
    assert document["srm"] == {"not_computable": "a direct run is not split"}
    assert document["differences"] == []
    assert paths.verdict_exit_code == 0


def test_blocks_on_separate_times_may_name_a_winner(tmp_path: Path) -> None:
    run = change(generated_run.write(tmp_path / "run", stand_in=False), kind="interleaved blocks")
    paths, document = report(run)
    assert document["summary"]["performance"]["names_winner"] is True
    assert document["differences"][0]["decision"]["verdict"] == "better"
    assert document["summary"]["performance"]["line"].startswith("better: tfserving's p95 is")
    assert paths.verdict_exit_code == 0
    backwards = json.loads((run / "run.json").read_text(encoding="utf-8"))["arms"]
    paths, document = report(change(run, arms=dict(reversed(backwards.items()))))
    assert document["summary"]["performance"]["line"].startswith("worse: torchserve's p95 is")
    assert paths.verdict_exit_code == 1


def test_a_busy_generator_is_said_first(tmp_path: Path) -> None:
    run = change(
        generated_run.write(tmp_path / "run"), limits={"limited_by": ["generator"], "generator_mean_cores": 0.9}
    )
    paths, document = report(run)
    assert "Limited by the generator." in paths.html.read_text(encoding="utf-8")
    assert states(document)["load side"] == "warning"


def test_what_the_load_test_found_counts(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    reasons = ["interrupted before the end of the measurement window"]
    paths, document = report(change(run, verdict={"exit_code": 2, "reasons": reasons}))
    assert paths.verdict_exit_code == 2
    assert states(document)["run finished"] == states(document)["load test"] == "inconclusive"


def test_every_reason_of_a_failed_load_test_is_shown(tmp_path: Path) -> None:
    reasons = ["tfserving: 3% of its requests failed", "interrupted before the end of the measurement window"]
    run = change(generated_run.write(tmp_path / "run"), verdict={"exit_code": 1, "reasons": reasons})
    paths, document = report(run)
    (check,) = [check for check in document["summary"]["checks"] if check["name"] == "load test"]
    assert (check["state"], check["text"]) == ("failed", "; ".join(reasons))
    assert all(reason in paths.html.read_text(encoding="utf-8") for reason in reasons)
    assert paths.verdict_exit_code == 1


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (-0.004, 0.004, "ok"),  # the whole interval within the margin of 0.005
        (-0.004, 0.006, "warning"),  # reaches beyond it on either side, or clears it on none: cannot tell
        (0.001, 0.006, "warning"),
        (-0.2, 0.2, "warning"),
        (0.0051, 0.02, "failed"),  # wholly outside, whichever arm is right more often
        (-0.02, -0.0051, "failed"),
    ],
)
def test_arms_answer_alike_only_within_the_margin(low: float, high: float, state: str) -> None:
    middle = (low + high) / 2
    accuracy = Difference(middle, Interval(low, high), 0.98, 0.98 + middle)
    nothing = NotComputable("not looked at")
    comparison = Comparison("a", "b", {}, nothing, accuracy, 0.0, Decision(Verdict.CANNOT_TELL, ""))
    assert check_same_answers(comparison).state == state


def test_units_of_a_killed_arm_stay_explained(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run", "skewed_split")
    phases = [{"phase": 1, "from_ns": 0, "weights": {"torchserve": 50, "tfserving": 50}, "killed": "torchserve"}]
    _, document = report(change(run, gateway={"records_dropped": 3, "phases": phases}))
    assert document["srm"]["units_in_unweighted_arms"] == ["tfserving"]
    assert states(document)["records complete"] == "warning"


def test_an_unknown_phase_is_not_guessed(tmp_path: Path) -> None:
    phases = [{"phase": 7, "from_ns": 0, "weights": {"torchserve": 50, "tfserving": 50}, "killed": None}]
    _, document = report(change(generated_run.write(tmp_path / "run"), gateway={"phases": phases}))
    assert document["srm"] == {"not_computable": "run.json does not tell the weights of phase 1"}


def test_requests_without_an_answer_learn_their_arm_from_the_records(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    duckdb.execute(
        f"""COPY (SELECT * REPLACE (CASE WHEN send_ns % 10 = 0 THEN '' ELSE arm END AS arm,
        CASE WHEN send_ns % 10 = 0 THEN 'timeout' ELSE error END AS error,
        CASE WHEN send_ns % 20 = 0 THEN '' ELSE request_id END AS request_id)
        FROM '{run}/ledger/part-0.parquet') TO '{run}/ledger/new.parquet'"""
    )
    (run / "ledger" / "part-0.parquet").unlink()
    _, document = report(run)
    lost, found = document["unattributed"], [arm["errors"]["by_kind"] for arm in document["arms"]]
    assert lost["requests"] > 100
    assert lost["errors"] == [{"kind": "timeout", "count": lost["requests"]}]
    assert all(kinds[0]["kind"] == "timeout" and kinds[0]["count"] > 50 for kinds in found)
    assert document["records"]["requests_without_record"] == lost["requests"]
    known = sum(arm["requests"] for arm in document["arms"])
    checks = {check["name"]: check for check in document["summary"]["checks"]}
    share = lost["requests"] / (known + lost["requests"])
    assert checks["requests without an arm"]["state"] == ("failed" if share > 0.01 else "warning")
    assert f"{lost['requests']} of {known + lost['requests']} failed" in checks["requests without an arm"]["text"]
    assert "a record for each request" not in checks
    assert "more failed before an arm was known" in document["summary"]["sentence"]
    assert document["summary"]["exit_code"] == 1


def test_an_answer_without_a_record_is_told(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    for path in (run / "records").glob("*.parquet"):
        duckdb.execute(
            f"COPY (SELECT * FROM '{path}' WHERE time_ns % 20 <> 0) TO '{path.with_suffix('.new')}' (FORMAT parquet)"
        )
        path.with_suffix(".new").replace(path)
    _, document = report(run)
    missing = document["records"]["requests_without_record"]
    checks = {check["name"]: check for check in document["summary"]["checks"]}
    assert missing > 100
    assert checks["a record for each request"]["state"] == "warning"
    assert checks["a record for each request"]["text"].startswith(f"{missing} requests that an arm answered")


def test_forced_requests_are_left_out(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    duckdb.execute(
        f"""COPY (SELECT * REPLACE (CASE WHEN send_ns % 4 = 0 THEN 'forced' ELSE assignment END AS assignment)
        FROM '{run}/ledger/part-0.parquet') TO '{run}/ledger/new.parquet'"""
    )
    (run / "ledger" / "part-0.parquet").unlink()
    _, document = report(run)
    left = document["unattributed"]["forced_left_out"]
    assert left > 500
    assert sum(arm["requests"] for arm in document["arms"]) + left == document["records"]["rows"]


@pytest.mark.parametrize("gone", ["run.json", "ledger", "records", "scrapes", "resources.parquet"])
def test_any_missing_part_is_named(tmp_path: Path, gone: str) -> None:
    run = generated_run.write(tmp_path / "run")
    target = run / gone
    for file in target.iterdir() if target.is_dir() else [target]:
        file.unlink()
    _, document = report(run)
    assert any(line.startswith(gone) for line in document["missing"])


def test_files_cut_short_are_left_out_and_named(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    whole = (run / "records" / "part-0.parquet").read_bytes()
    (run / "records" / "part-1.parquet").write_bytes(whole[: len(whole) // 2])
    (run / "ledger" / "part-1.parquet").write_bytes(b"")
    (run / "resources.parquet").write_bytes(b"PAR1")
    (run / "scrapes" / "tfserving-after.prom").write_text('x_bucket{le="1"', encoding="utf-8")
    _, document = report(run)
    named = " ".join(document["missing"])
    assert all(name in named for name in ("records/part-1.parquet", "ledger/part-1.parquet", "resources.parquet"))
    assert document["arms"][0]["gateway_ms"]["records"] == document["arms"][0]["requests"]
    assert document["arms"][1]["batching"]["distributions"] == {"not_computable": "not told by the server"}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"window": null, "arms": null, "profile": null, "gateway": null, "events": 3}']
)
def test_a_broken_run_json_is_no_traceback(tmp_path: Path, text: str) -> None:
    run = generated_run.write(tmp_path / "run", stand_in=False)
    (run / "run.json").write_text(text, encoding="utf-8")
    paths, document = report(run)
    assert paths.verdict_exit_code == 2
    assert sum(arm["requests"] for arm in document["arms"]) > 3000


def test_no_run_at_all_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither run\.json nor ledger/"):
        build_report(tmp_path)
    with pytest.raises(ConfigError, match=r"neither run\.json nor ledger/"):
        build_report(tmp_path / "nowhere")


def test_a_run_killed_before_anything_was_gathered(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "run.json").write_text('{"arms": {"a": {}, "b": {}}, "seed": NaN}', encoding="utf-8")
    paths, document = report(tmp_path)
    assert paths.verdict_exit_code == 2
    assert [arm["name"] for arm in document["arms"]] == ["a", "b"]
    assert any(line.startswith("ledger/") for line in document["missing"])


def test_a_run_that_sent_nothing(tmp_path: Path) -> None:
    run = generated_run.write(tmp_path / "run")
    told = json.loads((run / "run.json").read_text(encoding="utf-8"))
    window = {"warmup_start_ns": 1, "start_ns": 1, "end_ns": 2}
    paths, document = report(change(run, window=window, arms=told["arms"]))
    assert paths.verdict_exit_code == 2
    assert document["summary"]["sentence"].startswith("No request")
