"""Every fuzz target for half a second, and the fuzzer itself on decoders that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import RequestError
from tests.fuzz import results
from tests.fuzz.runner import run
from tests.fuzz.target import Target, all_targets

SECONDS = 0.5


@pytest.mark.parametrize("name", sorted(all_targets()))
def test_no_exception_but_ours(name: str) -> None:
    outcome = run(all_targets()[name], SECONDS, seed=1)
    assert not outcome.findings, "\n".join(f"{finding.data!r}: {finding.problem}" for finding in outcome.findings)
    assert outcome.calls > 5  # long inputs are slow, and a machine may be busy
    assert outcome.kinds > 1


def _leaks(data: bytes) -> None:
    if b"\xff" in data:
        raise IndexError("leaked")


def _swells(data: bytes) -> int:
    return len(bytearray(1 << 26 if len(data) > 4 else 0))


def _refuses(data: bytes) -> None:
    raise RequestError("invalid_argument", "no")


@pytest.mark.parametrize(
    ("call", "says"),
    [(_leaks, "IndexError: leaked"), (_swells, "bytes for an input of"), (_refuses, "the seed is refused")],
)
def test_what_the_fuzzer_finds(call: object, says: str) -> None:
    assert callable(call)
    outcome = run(Target("wrong", call, (b"seed",)), 5.0, most_findings=1)
    assert says in outcome.findings[0].problem


def test_the_same_seed_gives_the_same_inputs() -> None:
    inputs: list[list[bytes]] = [[], []]
    for found in inputs:
        run(Target("same", found.append, (b'{"a": [1, 2]}', b"\x00\x01")), 0.2, seed=3)
    length = min(map(len, inputs))
    assert length > 100
    assert inputs[0][:length] == inputs[1][:length]


def test_what_was_fuzzed_counts_until_its_source_changes_or_there_is_a_finding(tmp_path: Path) -> None:
    line = {"name": "json", "minutes": 4.0, "inputs": 9, "taken": 1, "kinds": 2, "seed": 1, "findings": 0}
    place = tmp_path / results.NAME
    for more in ({"source": "a"}, {"source": "a"}, {"source": "b"}, {"source": "c"}, {"source": "c", "findings": 1}):
        results.add(place, {**line, "commit": "1234", **more})
    lines = results.read(place, kept=tmp_path / "none")
    done = {source: results.minutes_done(lines, "json", source) for source in "abcd"}
    assert done == {"a": 8.0, "b": 4.0, "c": 0.0, "d": 0.0}
    assert results.minutes_done(lines, "http-path", "a") == 0.0
    assert results.table(lines, ["json", "http-path"]).splitlines()[1:] == [
        "http-path                    not finished",
        "json                             8.0         18          2     2        1  1234",
    ]


def test_a_run_kept_with_the_source_counts_once(tmp_path: Path) -> None:
    line = {"name": "json", "minutes": 4.0, "source": "a", "findings": 0}
    for place in ("kept", "later"):
        results.add(tmp_path / place, line)
    results.add(tmp_path / "later", {**line, "minutes": 1.5})
    lines = results.read(tmp_path / "later", kept=tmp_path / "kept")
    assert results.minutes_done(lines, "json", "a") == 5.5


def test_the_source_of_a_target_is_what_it_runs_through() -> None:
    known = all_targets()
    sources = {name: results.source_of(known[name]) for name in ("json", "http-gzip", "tfs-messages")}
    assert len(set(sources.values())) == 3
    assert sources["json"] == results.source_of(known["json"])
