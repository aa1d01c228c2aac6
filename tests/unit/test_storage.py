"""Files that must survive: whole or not at all, and an audit that only grows."""

import json
import os
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.experiments.state import ModelState, State
from gateway.storage import AuditFile, StateFile, write_atomically

STATE = State(3, {"m": ModelState({"a": 1, "b": 2}, 2, "state", "hash", '["e","s"]', killed=None)})


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "deep" / "state.json")
    assert file.load() == State()
    file.save(STATE)
    assert file.load() == STATE


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.storage.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9, "revision": 1, "models": {}}'])
def test_a_file_that_is_no_state_is_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        StateFile(path).load()
    assert str(path) in caught.value.problems[0]
    assert "remove it to go back to" in caught.value.problems[0]


def test_the_audit_grows_by_one_line_a_change_whatever_people_type(tmp_path: Path) -> None:
    audit = AuditFile(tmp_path / "logs" / "audit.jsonl")
    entries = [{"why": "Größe\nzwei"}, {"why": "\ud800 half a character"}, {"why": "three"}]
    for entry in entries:
        audit.append(entry)
    lines = audit.path.read_text("utf-8").split("\n")
    assert lines.pop() == ""
    assert len(lines) == 3
    assert json.loads(lines[0]) == entries[0]
    assert json.loads(lines[2]) == entries[2]
