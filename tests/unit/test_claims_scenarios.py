"""What the scenarios prepare and cut: captures of lengths, two versions of one artefact, phases, the documents for people."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import ConfigError
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec
from loadtest.claims import evaluate, lengths, run, swap, table, words
from loadtest.claims.answer import Judged
from loadtest.claims.changes import Clock
from loadtest.claims.measure import State, grouped, last_line
from loadtest.claims.phases import failures, phases, seconds
from loadtest.claims.plan import plan
from loadtest.replay import Replay

SIGNATURE = {
    "format": 1, "model": "m", "signature_name": "serving_default",
    "inputs": [{"name": "ids", "datatype": "INT64", "shape": [-1, -1]}, {"name": "mask", "datatype": "INT64", "shape": [-1, -1]}],
    "outputs": [{"name": "output_0", "datatype": "FP32", "shape": [-1, 4]}],
}  # fmt: skip


def test_lengths_even_and_mixed_have_the_same_mean() -> None:
    even, mixed = (lengths.lengths(64, how, 1) for how in ("even", "mixed"))  # type: ignore[arg-type]
    assert set(even) == {36}
    assert (min(mixed), max(mixed), len(set(mixed))) == (8, 64, 57)
    assert np.mean(mixed) == pytest.approx(36, abs=0.5)
    assert mixed != sorted(mixed)
    assert mixed == lengths.lengths(64, "mixed", 1)


def test_a_capture_of_mixed_lengths_can_be_replayed(tmp_path: Path) -> None:
    inputs, signature = tmp_path / "inputs.npz", tmp_path / "signature.json"
    np.savez(inputs, ids=np.arange(80, dtype=np.int64).reshape(5, 16), mask=np.ones((5, 16), np.int64))
    signature.write_text(json.dumps(SIGNATURE))
    folder = lengths.capture("m", inputs, signature, "mixed", tmp_path / "mixed")
    replay = Replay.load(folder)
    sent = [
        message_class("tensorflow.serving.PredictRequest").FromString(replay.payload(i).body)
        for i in range(len(replay))
    ]
    assert len(sent) == lengths.REQUESTS
    shapes = [tuple(d.size for d in one.inputs["ids"].tensor_shape.dim) for one in sent]
    assert [columns for _, columns in shapes] == lengths.lengths(16, "mixed", 1)
    assert {rows for rows, _ in shapes} == {1}
    assert set(sent[0].inputs) == {"ids", "mask"}
    fixed = Signature("m", "s", (TensorSpec("x", "FP32", (-1, 8, 8, 1)),), ())
    with pytest.raises(ConfigError, match="any length"):
        lengths.check("m", fixed)


def test_two_versions_of_one_artefact(tmp_path: Path) -> None:
    saved = tmp_path / "savedmodel"
    (saved / "1").mkdir(parents=True)
    base = swap.base_path(tmp_path / "bases" / "m", saved)
    assert (base / "1").resolve() == (saved / "1").resolve()
    store = tmp_path / "store"
    (store / "MAR-INF").mkdir(parents=True)
    (store / "model.pt").write_bytes(b"weights")
    (store / "MAR-INF" / "MANIFEST.json").write_text('{"model": {"modelName": "m", "modelVersion": "1.0"}}')
    second = swap.second_version(store, tmp_path / "second")
    assert json.loads((second / "MAR-INF" / "MANIFEST.json").read_text())["model"]["modelVersion"] == "2.0"
    assert (second / "model.pt").read_bytes() == b"weights"


def requests(times_s: list[float], latency_ms: list[float | None]) -> Any:
    """Requests due at these times after 100 s; None is one that failed."""
    due = np.array([round((100 + t) * 1e9) for t in times_s], dtype=np.int64)
    ended = np.array([-1 if ms is None else round(ms * 1e6) for ms in latency_ms], dtype=np.int64)
    done = np.where(ended < 0, -1, due + ended)
    error = np.array(["timeout" if ms is None else "" for ms in latency_ms], dtype=object)

    class Found:
        due_ns, done_ns = due, done

    Found.error = error  # type: ignore[attr-defined]
    return Found


def test_requests_are_cut_by_the_phase_in_which_they_were_due() -> None:
    clock = Clock()
    clock.steps = {"add": (102_000_000_000, 103_000_000_000), "remove": (104_000_000_000, 104_500_000_000)}
    found = requests([0, 1, 2.5, 3.2, 4.1, 4.9, 5.5, 6], [5, 6, 50, None, 7, 8, 5, 4])
    cut = {part["phase"]: part for part in phases(found, 100_000_000_000, clock)}
    counted = {name: (part["n"], part["errors"], part["p99_ms"]) for name, part in cut.items()}
    assert counted == {
        "before": (2, 0, 6.0), "changes": (4, 1, 50.0), "after": (2, 0, 5.0), "add": (2, 1, 50.0), "remove": (2, 0, 8.0),
    }  # fmt: skip
    assert (cut["changes"]["start_s"], cut["changes"]["end_s"]) == (2.0, 5.0)
    by_second = seconds(found, 100_000_000_000)
    assert [(one["s"], one["n"], one["errors"]) for one in by_second] == [
        (0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 1), (4, 2, 0), (5, 1, 0), (6, 1, 0),
    ]  # fmt: skip


def test_without_a_failed_request_the_changes_count_and_not_the_requests() -> None:
    """Requests fail together: 18 rounds without a failure may be those of a server that fails in one of ten."""
    part = failures("f", [{"changes": {"n": 1000, "errors": 0}}] * 6, [])
    assert part.figures == {"value": 0.0, "low": None, "high": None, "n": 6}
    assert "none of 6000 requests failed in 18 rounds of changes, so that at most 15% of rounds fail any" in part.reason
    assert isinstance(part.judged, Judged)
    assert part.judged.holds == pytest.approx(0.999**18)


def test_blocks_of_a_group_bear_its_name_and_replace_each_other(tmp_path: Path) -> None:
    state = State(tmp_path, {"blocks": [], "results": {}}, lambda: None)
    block = {"id": "a", "arm": "ts-eager", "cpu": {"arm ts-eager": {"rss_bytes": 1}, "gateway": {"rss_bytes": 2}}}
    state.put(grouped(block, "digits"))
    state.put({**grouped(block, "digits"), "order": 3})
    assert [one["order"] for one in state.document["blocks"]] == [3]
    assert state.blocks["a"]["arm"] == "digits/ts-eager"
    assert set(state.blocks["a"]["cpu"]) == {"arm digits/ts-eager", "gateway"}
    assert last_line("one\ntwo\n\n") == "two"


def test_a_run_is_told_in_markdown_with_margins_figures_and_sources() -> None:
    document = {
        "machine": {"cpu": "A | B", "cores": 2, "memory_bytes": 2**34, "os": "Linux"}, "started": "2026-01-02T03:04:05",
        "seconds": 3600.0, "complete": False, "arms": {}, "blocks": [], "results": {},
    }  # fmt: skip
    shipped = table.load()
    planned = plan(shipped, shipped.chosen(), 1)
    document["results"] = evaluate.results(planned, evaluate.Measured({}))
    text = words.markdown(document)
    assert text.count("\n| compile-resnet50 |") == 1
    assert "| at least 1.2 |" in text
    assert "cut short" in text
    assert (
        "[On the Cost of Model-Serving Frameworks: An Experimental Evaluation](https://arxiv.org/abs/2411.10337)"
        in text
    )
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") in (6, 8) for line in rows)
    assert len(words.summary(planned)) == 9
    assert words.listing(planned).row_count == 22


def test_a_run_goes_on_only_with_the_table_it_was_begun_with() -> None:
    told = {"kind": "claims", "plan": {"table_sha256": "other", "ids": [], "quick": False, "seed": 1, "starts": 6}}
    with pytest.raises(ConfigError, match="has changed since the run began"):
        run.asked_of(told)
    with pytest.raises(ConfigError, match="not 'claims'"):
        run.asked_of({"kind": "slo"})
