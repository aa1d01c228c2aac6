"""Bodies are the wire formats' own, rows are the ones that were drawn, and bad inputs are told before a run."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import ConfigError
from gateway.protocol.descriptors import message_class
from gateway.protocol.signature_file import Signature, TensorSpec
from loadtest import answers, payloads
from loadtest.profiles import Check, parse

X = np.array([[0.5, 0.1], [0.25, 1.0], [-1.0, 3.0]], dtype=np.float32)
DATA = payloads.Dataset({"x": X}, np.array([0, 1, 1]), {"y": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])})
SIGNATURE = Signature("m", "serving_default", (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


def predict_response(name: str, shape: tuple[int, ...], dtype: int = 1, **fields: Any) -> bytes:
    message = message_class("tensorflow.serving.PredictResponse")()
    tensor = message.outputs[name]
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    for field, value in fields.items():
        if isinstance(value, bytes):
            setattr(tensor, field, value)
        else:
            getattr(tensor, field).extend(value)
    return bytes(message.SerializeToString())


def torchserve_reply(head: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(head).encode()
    frame = b"ABG1" + struct.pack("<I", len(text)) + text + payload
    return bytes(
        message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(prediction=frame).SerializeToString()
    )


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "inputs.npz", **arrays)
    return path / "inputs.npz"


def test_a_single_input_stands_bare_in_its_row_with_the_shortest_digits() -> None:
    assert payloads.json_body(DATA, [0, 1]) == b'{"instances":[[0.5,0.1],[0.25,1.0]]}'


def test_several_inputs_stand_by_name() -> None:
    data = payloads.Dataset({"a": X, "b": np.array([[1], [2], [3]])}, None, {})
    assert json.loads(payloads.json_body(data, [2])) == {"instances": [{"a": [-1.0, 3.0], "b": [3]}]}


def test_the_predict_request_is_tensorflow_servings_own() -> None:
    message = message_class("tensorflow.serving.PredictRequest").FromString(
        payloads.predict_request("m", "serving_default", DATA, [2, 0])
    )
    assert (message.model_spec.name, message.model_spec.signature_name) == ("m", "serving_default")
    tensor = message.inputs["x"]
    assert (tensor.dtype, [dim.size for dim in tensor.tensor_shape.dim]) == (1, [2, 2])
    assert tensor.tensor_content == struct.pack("<4f", -1.0, 3.0, 0.5, np.float32(0.1))


def test_torchserve_gets_the_json_under_the_key_of_its_form() -> None:
    message = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(
        payloads.torchserve_request("m", b"{}")
    )
    assert (message.model_name, dict(message.input)) == ("m", {"tfs-json": b"{}"})


def test_a_group_of_single_rows_holds_every_row_once_in_a_seeded_order() -> None:
    profile = parse({"model": "m", "users": 1, "duration": 1, "mix": {"tfs-rest": 1}, "rows": 1, "seed": 5}, "p")
    wire = payloads.Wire("m", "s", json=True, proto=False)
    (group,) = payloads.build(DATA, profile, wire)
    assert sorted(payload.indices for payload in group.payloads) == [(0,), (1,), (2,)]
    assert all(payload.json == payloads.json_body(DATA, payload.indices) for payload in group.payloads)
    assert all(payload.proto == b"" for payload in group.payloads)
    assert payloads.build(DATA, profile, wire) == (group,)


def test_larger_requests_have_their_rows_and_the_budget_bounds_their_number() -> None:
    rows = [{"rows": 1, "weight": 3}, {"rows": 4}]
    profile = parse({"model": "m", "users": 1, "duration": 1, "mix": {"tfs-grpc": 1}, "rows": rows}, "p")
    one, four = payloads.build(DATA, profile, payloads.Wire("m", "s", json=False, proto=True), budget=1)
    assert (one.weight, four.weight, len(four.payloads)) == (3.0, 1.0, 8)
    assert all(payload.rows == len(payload.indices) == 4 for payload in four.payloads)


def test_the_split_keeps_its_rows_and_separates_inputs_from_expectations(tmp_path: Path) -> None:
    path = npz(tmp_path, x=X, label=[0, 1, 1], split=[0, 1, 1], **{"out:y": X})
    data = payloads.load_dataset(path, "test", SIGNATURE)
    assert set(data.inputs) == {"x"}
    assert data.inputs["x"].tolist() == X[1:].tolist()
    assert data.label is not None
    assert data.label.tolist() == [1, 1]
    assert data.reference["y"].tolist() == X[1:].tolist()
    assert payloads.load_dataset(path, "all", SIGNATURE).rows == 3


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"label": [1]}, "holds no input arrays"),
        ({"x": X, "label": [1, 2]}, "same number of rows"),
        ({"z": X}, r"has the inputs \['z'\]; the model's signature wants \['x'\]"),
        ({"x": X.reshape(3, 2, 1)}, r"x: rows have the shape \[2, 1\]; the model's signature wants \[2\]"),
        ({"x": np.array([["a", "b"]])}, "cannot be sent; use numbers or booleans"),
    ],
)
def test_inputs_that_cannot_be_sent_are_refused(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        payloads.load_dataset(npz(tmp_path, **arrays), "test", SIGNATURE)


def test_a_users_floats_and_integers_take_the_models_types(tmp_path: Path) -> None:
    data = payloads.load_dataset(npz(tmp_path, x=X.astype(np.float64)), "all", SIGNATURE)
    assert data.inputs["x"].dtype == np.float32
    assert data.inputs["x"].tolist() == X.tolist()
    whole = payloads.load_dataset(npz(tmp_path, x=np.array([[1, 2]])), "all", SIGNATURE)
    assert (whole.inputs["x"].dtype, whole.inputs["x"].tolist()) == (np.float32, [[1.0, 2.0]])
    with pytest.raises(ConfigError, match="x: values of int64 do not survive as the model's float32"):
        payloads.load_dataset(npz(tmp_path, x=np.array([[1, 2**24 + 1]])), "all", SIGNATURE)


def test_json_lines_are_rows_with_or_without_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": [1, 2.5], "label": 3}\n\n{"x": [NaN, 4], "label": 5}\n', "utf-8")
    data = payloads.load_dataset(path, "all", SIGNATURE)
    assert data.inputs["x"].dtype == np.float32
    assert str(data.inputs["x"].tolist()) == "[[1.0, 2.5], [nan, 4.0]]"
    assert data.label is not None
    assert data.label.tolist() == [3, 5]
    assert payloads.json_body(data, [1, 0]) == b'{"instances": [[NaN, 4.0], [1.0, 2.5]]}'
    path.write_text("[1, 2]\n[3, 4]\n", "utf-8")
    assert payloads.load_dataset(path, "all", SIGNATURE).inputs["x"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no input arrays"),
        ('{"x": [1, 2]}\n{"x": [1,', r"rows.jsonl:2: cannot be read as JSON lines"),
        ('{"x": [1, 2]}\n{"y": [1, 2]}', r"row 2 has \['y'\], the first one has \['x'\]"),
        ('{"x": [1, 2]}\n{"x": [1]}', "'x': the rows differ in shape"),
        ('{"x": ["a", "b"]}', "cannot be sent; use numbers or booleans"),
    ],
)
def test_json_lines_that_cannot_be_sent_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=problem):
        payloads.load_dataset(path, "all", SIGNATURE)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(ConfigError, match="cannot be read as an npz file"):
        payloads.load_dataset(path, "test", None)


@pytest.mark.parametrize(
    ("check", "data", "outputs", "problem"),
    [
        (Check(kind="off"), payloads.Dataset({"x": X}, None, {}), ("a", "b"), None),
        (Check(kind="label"), DATA, ("y",), None),
        (Check(kind="label"), payloads.Dataset({"x": X}, None, {}), ("y",), "needs an array `label`"),
        (Check(kind="reference"), DATA, ("z",), "needs an array `out:z`"),
        (Check(kind="label"), DATA, ("y", "z"), "name one of y, z"),
        (Check(kind="label", output="q"), DATA, ("y",), "no output 'q'"),
    ],
)
def test_a_check_that_cannot_be_made(
    check: Check, data: payloads.Dataset, outputs: tuple[str, ...], problem: str | None
) -> None:
    found = payloads.check_problems(check, data, outputs)
    assert (problem is None and found == []) or (len(found) == 1 and str(problem) in found[0])


@pytest.mark.parametrize(
    ("body", "output", "rows"),
    [
        (b'{"predictions":[[1.0,2.0]]}', None, [[1.0, 2.0]]),
        (b'{"predictions":[{"y":[1],"z":[2]}]}', "z", [[2]]),
        (b'{"predictions":[{"y":[1]}]}', None, [[1]]),
        (b'{"predictions":[[Infinity,1.0]]}', None, [[float("inf"), 1.0]]),
    ],
)
def test_rows_of_a_rest_reply(body: bytes, output: str | None, rows: list[Any]) -> None:
    assert answers.rows_of_json(body, output) == rows


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"error":"x"}', b'{"predictions":[]}', b'{"predictions":7}', b'{"predictions":[{}]}']
)
def test_a_reply_that_is_none_is_no_answer(body: bytes) -> None:
    with pytest.raises(answers.BadAnswer):
        answers.rows_of_json(body, None)


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"tensor_content": struct.pack("<2f", 1.5, 2.5)}, [[1.5, 2.5]]),
        ({"float_val": [1.5, 2.5]}, [[1.5, 2.5]]),
        ({"float_val": [1.5]}, [[1.5, 1.5]]),
        ({"dtype": 9, "int64_val": [3, 4]}, [[3, 4]]),
        ({"dtype": 19, "half_val": [0x3C00, 0x4000]}, [[1.0, 2.0]]),
    ],
)
def test_an_output_tensor_in_every_form(fields: dict[str, Any], values: list[Any]) -> None:
    assert answers.array_of_proto(predict_response("y", (1, 2), **fields), "y").tolist() == values


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff",
        b"",
        predict_response("other", (1, 2), float_val=[1.0, 2.0]),
        predict_response("y", (1, 2), float_val=[]),
        predict_response("y", (1, 2), float_val=[1.0, 2.0, 3.0]),
        predict_response("y", (1, 2), dtype=7),
    ],
)
def test_a_message_that_is_no_answer(message: bytes) -> None:
    with pytest.raises(answers.BadAnswer):
        answers.array_of_proto(message, "y")


def test_the_frame_of_torchserves_reply() -> None:
    good = torchserve_reply({"status": 200, "batch_size": 3}, b"{}")
    bad = torchserve_reply({"status": 400, "error": "rank"}, b"")
    assert answers.unwrap_torchserve(good) == (200, b"{}", "")
    assert answers.unwrap_torchserve(bad) == (400, b"", "rank")
    for message in (b"", b"\xff", torchserve_reply({}, b"")):
        with pytest.raises(answers.BadAnswer):
            answers.unwrap_torchserve(message)


LABEL = answers.Judge(Check(kind="label"), DATA, "y")
REFERENCE = answers.Judge(Check(kind="reference", rtol=0.0, atol=0.01), DATA, "y")
NAN = float("nan")


@pytest.mark.parametrize(
    ("judge", "rows", "indices", "right"),
    [
        (LABEL, [[0.9, 0.1]], (0,), True),
        (LABEL, [[0.9, 0.1]], (1,), False),
        (LABEL, [[0.9, 0.1], [0.1, 0.9]], (0, 1), True),
        (LABEL, [[0.9, 0.1], [0.9, 0.1]], (0, 1), False),
        (LABEL, [[0.9, 0.1]], (0, 1), False),
        (LABEL, [[1, 0]], (0,), True),
        (LABEL, [[NAN, 0.1]], (0,), False),
        (LABEL, [[0.9, NAN]], (0,), False),
        (LABEL, [[float("inf"), 0.1]], (0,), True),
        (LABEL, [[float("inf"), float("-inf")]], (0,), True),
        (LABEL, [[]], (0,), False),
        (LABEL, [7.0], (0,), False),
        (LABEL, [["a", "b"]], (0,), False),
        (LABEL, [[1.0], [1.0, 2.0]], (0, 1), False),
        (REFERENCE, [[1.0, 2.009]], (0,), True),
        (REFERENCE, [[1.0, 2.02]], (0,), False),
        (REFERENCE, [[1.0, NAN]], (0,), False),
        (REFERENCE, [[1.0]], (0,), False),
        (REFERENCE, [[5.0, 6.0], [1.0, 2.0]], (2, 0), True),
    ],
)
def test_the_judge(judge: answers.Judge, rows: list[Any], indices: tuple[int, ...], right: bool) -> None:
    assert judge.rows(rows, indices) is right
    try:
        values = np.array(rows, dtype=np.float32)
    except ValueError:  # no rectangle of numbers: only REST can say such a thing
        return
    assert judge.array(values, indices) is right
