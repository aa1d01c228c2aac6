import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import ConfigError
from gateway.protocol.signature_file import Signature, TensorSpec
from model_store import arrays, inputs

Y = (TensorSpec("y", "FP32", (-1, 2)),)
ONE = Signature("m", "serving_default", (TensorSpec("x", "FP32", (-1, 2)),), Y)
TWO = Signature("m", "serving_default", (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("t", "BYTES", (-1,))), Y)
X = np.array([[1, 2], [3, 4]], np.float32)


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_json_lines_of_bare_rows_and_of_objects_are_the_same(tmp_path: Path) -> None:
    bare = inputs.read(write_lines(tmp_path / "a.jsonl", [1, 2], "", [3, 4]), ONE)
    named = inputs.read(write_lines(tmp_path / "b.jsonl", {"x": [1, 2.0]}, {"x": [3, 4]}), ONE)
    for found in (bare, named):
        assert list(found) == ["x"]
        assert found["x"].dtype == np.float32
        assert np.array_equal(found["x"], X)


def test_text_and_base64_become_bytes_and_survive_the_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"ids": [1, 2], "t": "ä"}, {"ids": [3, 4], "t": {"b64": "AAA="}})
    found = inputs.read(path, TWO)
    assert found["ids"].dtype == np.int64
    assert found["t"].tolist() == ["ä".encode(), b"\0\0"]
    arrays.save(tmp_path / "kept.npz", found)
    again = arrays.load(tmp_path / "kept.npz")
    assert again["t"].tolist() == ["ä".encode(), b"\0\0"]
    assert np.array_equal(again["ids"], found["ids"])


def test_an_npz_keeps_inputs_labels_and_expected_outputs_only(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    given = {"x": X.astype(np.float64), "label": np.array([0, 1]), "out:y": X, "notes": np.array(["n"])}
    np.savez(path, allow_pickle=False, **given)
    found = inputs.read(path, ONE)
    assert set(found) == {"x", "label", "out:y"}
    assert found["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["{"], "line 1: is not JSON"),
        ([[1, 2], [1, 2, 3]], "line 2: input 'x' has shape [3] where [2] is right for a row"),
        ([[[1, 2], [3]]], "line 1: input 'x' is ragged"),
        ([{"y": [1, 2]}], "line 1: has ['y'] where the inputs ['x'] are right"),
        ([["a", "b"]], "where FP32 is right"),
        ([[True, False]], "line 1: input 'x' is bool where FP32 is right"),
        ([[1e300, 0]], "where FP32 is right"),
        ([], "there are no rows"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inputs.read(write_lines(tmp_path / "a.jsonl", *rows), ONE)
    assert said in str(caught.value)


def test_a_bare_row_needs_a_model_with_one_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bare list"):
        inputs.read(write_lines(tmp_path / "a.jsonl", [1]), TWO)


def test_a_fraction_is_no_whole_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'ids' is float64 where INT64 is right"):
        inputs.read(write_lines(tmp_path / "a.jsonl", {"ids": [1.5], "t": "a"}), TWO)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"z": X}, "no input 'x'; the file has 'z'"),
        ({"x": X[:, :1]}, "has shape [2, 1] where [-1, 2] is right"),
        ({"x": X[:0]}, "there are no rows"),
        ({"x": X, "label": np.array([1, 2, 3])}, "'label' is int64 [3]; one entry per input (2) is right"),
        ({"x": X, "out:y": X[:1]}, "'out:y' is float32 [1, 2]; one entry per input (2) is right"),
    ],
)
def test_a_bad_npz_is_named(tmp_path: Path, found: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "a.npz", **found)
    with pytest.raises(ConfigError) as caught:
        inputs.read(tmp_path / "a.npz", ONE)
    assert said in str(caught.value)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(ConfigError, match=r"not an \.npz file of plain arrays"):
        inputs.read(tmp_path / "a.npz", ONE)


@pytest.mark.parametrize(
    ("name", "said"), [("a.csv", "must be an .npz file or JSON lines"), ("a.npz", "cannot be read")]
)
def test_a_file_of_another_kind_or_none_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        inputs.read(tmp_path / name, ONE)


def test_an_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match=r"not an \.npz file"):
        inputs.read(tmp_path / "a.npz", ONE)


def test_equal_arrays_make_equal_files_whatever_they_are_called(tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        arrays.save(tmp_path / name, {"file": X, "conv1/kernel": X})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert set(arrays.load(tmp_path / "one.npz")) == {"file", "conv1/kernel"}
