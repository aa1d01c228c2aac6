"""The handler on TorchServe's own Context and metrics cache, without the server: batches, mates, envelopes, counters."""

from __future__ import annotations

import itertools
import json
import logging
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_torchserve import write_pair, write_tiny

from backends.torchserve.handler import Handler

# TorchServe's own modules leave the files they read to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def context(folder: Path, metrics: Any = None) -> Any:
    """What TorchServe hands a handler."""
    from ts.context import Context

    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
    return Context(manifest["model"]["modelName"], str(folder), manifest, 8, None, "0.12.0", True, metrics, {})


def load(folder: Path, metrics: Any = None) -> tuple[Handler, Any]:
    handler, ctx = Handler(), context(folder, metrics)
    handler.initialize(ctx)
    return handler, ctx


def call(
    handler: Handler, ctx: Any, *requests: tuple[dict[str, Any], dict[str, str]]
) -> list[tuple[int, dict[str, str], bytes]]:
    """One batch of (parameters, headers); answers (status, headers, body)."""
    from ts.context import RequestProcessor

    ctx.request_processor = [RequestProcessor(headers) for _, headers in requests]
    bodies = handler.handle([row for row, _ in requests], ctx)
    assert len(bodies) == len(requests)
    return [
        (ctx.get_response_status(index)[0], ctx.get_response_headers(index), body) for index, body in enumerate(bodies)
    ]


def rest(body: str, form: str = "tfs-json", **headers: str) -> tuple[dict[str, Any], dict[str, str]]:
    return {"body": bytearray(body.encode())}, {"x-abgate-format": form, **headers}


def grpc_call(form: str, body: bytes, sent: str = "1") -> tuple[dict[str, Any], dict[str, str]]:
    return {form: bytearray(body), "x-abgate-sent-ns": bytearray(sent.encode())}, {}


def opened(prediction: bytes) -> tuple[dict[str, Any], bytes]:
    assert prediction[:4] == b"ABG1"
    (length,) = struct.unpack_from("<I", prediction, 4)
    return json.loads(prediction[8 : 8 + length]), prediction[8 + length :]


def binary(tensors: list[tuple[str, str, np.ndarray]], **head: Any) -> bytes:
    described = [
        {"name": name, "datatype": kind, "shape": list(array.shape), "parameters": {"binary_data_size": array.nbytes}}
        for name, kind, array in tensors
    ]
    text = json.dumps({"inputs": described, **head}).encode()
    return struct.pack("<I", len(text)) + text + b"".join(array.tobytes() for _, _, array in tensors)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Handler, Any]:
    """A loaded handler of the model tiny: y = [sum of the row, 2 * first element]."""
    return load(write_tiny(tmp_path_factory.mktemp("handler") / "tiny"))


def test_a_batch_of_every_format_is_one_forward_with_the_right_rows(tiny: tuple[Handler, Any]) -> None:
    handler, ctx = tiny
    oip = json.dumps({"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [7, 8, 9]}]})
    raw = binary([("x", "FP32", np.array([[1, 0, 0], [2, 0, 0]], "<f4"))])
    answers = call(
        handler,
        ctx,
        rest('{"instances": [[1, 2, 3], [NaN, Infinity, 6]]}', **{"x-abgate-sent-ns": str(time.time_ns() - 1000)}),
        rest('{"inputs": {"x": [[4, 5, 6]]}}'),
        rest(oip, "oip-json"),
        grpc_call("oip-binary", raw),
        ({"body": {"instances": [[1, 1, 1]]}}, {}),
        rest('{"instances": [[1, 2]]}'),
    )
    assert [status for status, _, _ in answers] == [200, 200, 200, 200, 200, 400]
    first, second, third, fourth, fifth, sixth = (body for _, _, body in answers)
    assert first == b'{"predictions":[[6.0,2.0],[NaN,NaN]]}'
    assert json.loads(second) == {"outputs": [[15.0, 8.0]]}
    assert json.loads(third) == {
        "id": "7",
        "model_name": "tiny",
        "model_version": "1.0",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [24.0, 14.0]}],
    }
    head, payload = opened(fourth)
    assert (head["status"], head["batch_size"], head["batch_rows"]) == (200, 6, 7)
    assert head["queue_ns"] > 0
    assert np.frombuffer(payload[-16:], "<f4").tolist() == [1, 2, 2, 4]
    assert json.loads(fifth) == {"predictions": [[3.0, 2.0]]}
    assert "dimension 1 is 2" in json.loads(sixth)["error"]
    told = answers[0][1]
    assert (told["x-abgate-batch-size"], told["x-abgate-batch-rows"]) == ("6", "7")
    assert int(told["x-abgate-queue-ns"]) >= 1000
    assert told["content-type"] == "application/json"
    assert "x-abgate-queue-ns" not in answers[1][1]


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (({}, {}), 400, "no body"),
        (({"body": bytearray(b"\xff")}, {}), 400, "JSON Parse error"),
        (({"body": None}, {"x-abgate-format": "tfs-json"}), 400, "no body"),
        (({"body": 7}, {}), 400, "expected a JSON object"),
        (({"body": {"inputs": [{"datatype": "FP32"}]}}, {}), 400, "expected objects with name"),
        (rest("{}", "yaml"), 400, "'yaml' is none of"),
        (rest('{"instances": [[1, 2, 3]]}', **{"x-abgate-sent-ns": "soon"}), 400, "invalid literal"),
        (rest("[" * 100_000), 400, ""),
    ],
)
def test_odd_requests_get_400_and_the_keys_that_keep_the_worker_alive(
    tiny: tuple[Handler, Any], request_: tuple[dict[str, Any], dict[str, str]], status: int, words: str
) -> None:
    handler, ctx = tiny
    bad, good = call(handler, ctx, request_, rest('{"instances": [[1, 2, 3]]}'))
    body = json.loads(bad[2])
    assert (bad[0], good[0]) == (status, 200)
    assert words in body["error"]
    if "x-abgate-format" not in request_[1]:
        assert {"id", "model_name", "model_version", "outputs"} <= set(body)


def test_an_error_over_grpc_lies_in_the_envelope(tiny: tuple[Handler, Any]) -> None:
    handler, ctx = tiny
    bad = binary([("x", "FP32", np.zeros((1, 2), "<f4"))])
    (_, _, body), (_, _, good) = call(
        handler, ctx, grpc_call("oip-binary", bad), grpc_call("tfs-json", b'{"inputs":[[1,2,3]]}')
    )
    head, payload = opened(body)
    assert (head["status"], payload) == (400, b"")
    assert "dimension 1 is 2" in head["error"]
    assert json.loads(opened(good)[1]) == {"outputs": [[6.0, 2.0]]}


def test_two_inputs_two_outputs_and_only_the_output_asked_for(tmp_path: Path) -> None:
    handler, ctx = load(write_pair(tmp_path / "pair"))
    raw = binary(
        [("k", "INT64", np.array([10, 20])), ("a", "FP32", np.array([[1, 2], [3, 4]], "<f4"))],
        outputs=[{"name": "next"}],
    )
    uneven = '{"inputs": {"a": [[1, 2]], "k": [1, 2]}}'
    answers = call(
        handler, ctx, rest('{"instances": [{"a": [1, 2], "k": 4}]}'), grpc_call("oip-binary", raw), rest(uneven)
    )
    assert json.loads(answers[0][2]) == {"predictions": [{"sum": [5.0, 6.0], "next": 5}]}
    assert np.frombuffer(opened(answers[1][2])[1][-16:], "<i8").tolist() == [11, 21]
    assert json.loads(answers[2][2])["error"] == "inputs differ in their number of rows: [1, 2]"


PLAIN = """import numpy as np
class Model:
    def __init__(self, folder):
        self.folder = folder
    def __call__(self, ids, text):
        upper = np.empty(len(text), object)
        upper[:] = [item.upper() for item in text]
        return ids.sum(1, keepdims=True) + np.int64([[len(item)] for item in text]), upper
"""


def test_a_model_in_plain_python_serves_text_and_whole_numbers(tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "plain")
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
    manifest["model"]["serializedFile"] = "model.py"
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "model.py").write_text(PLAIN)
    tensors = {
        "inputs": [("ids", "INT64", [-1, 2]), ("text", "BYTES", [-1])],
        "outputs": [("n", "INT64", [-1, 1]), ("upper", "BYTES", [-1])],
    }
    signature = {
        side: [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in specs]
        for side, specs in tensors.items()
    }
    (folder / "signature.json").write_text(json.dumps(signature))
    handler, ctx = load(folder)
    big = 1 << 60
    one = json.dumps({"instances": [{"ids": [big, 1], "text": "ab"}, {"ids": [0, 0], "text": {"b64": "/2E="}}]})
    two = json.dumps({"inputs": {"ids": [[1, 1]], "text": [""]}})
    bad = json.dumps({"inputs": {"ids": [[1, 1]], "text": [1]}})
    answers = call(handler, ctx, rest(one), rest(bad), rest(two))
    assert [status for status, _, _ in answers] == [200, 400, 200]
    assert json.loads(answers[0][2]) == {
        "predictions": [{"n": [big + 3], "upper": "AB"}, {"n": [2], "upper": {"b64": "/0E="}}]
    }
    assert json.loads(answers[2][2]) == {"outputs": {"n": [[2]], "upper": [""]}}


def test_a_request_that_breaks_the_model_breaks_alone(
    tiny: tuple[Handler, Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, ctx = tiny
    whole = handler.model.run

    def fragile(arrays: list[np.ndarray]) -> list[np.ndarray]:
        if (arrays[0] == 13).any():
            raise RuntimeError("Traceback of TorchScript\nRuntimeError: thirteen")
        return whole(arrays)

    monkeypatch.setattr(handler.model, "run", fragile)
    answers = call(handler, ctx, *(rest(f'{{"instances": [[{n}, 0, 0]]}}') for n in (1, 13, 3)))
    assert [status for status, _, _ in answers] == [200, 500, 200]
    assert [json.loads(body) for _, _, body in answers] == [
        {"predictions": [[1.0, 2.0]]},
        {"error": "the model failed: RuntimeError: thirteen"},
        {"predictions": [[3.0, 6.0]]},
    ]
    assert "thirteen" in capfd.readouterr().err


def test_counters_are_what_a_histogram_would_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

    import backends.torchserve

    cache = MetricsCacheYamlImpl(str(Path(backends.torchserve.__file__).with_name("metrics.yaml")))
    cache.initialize_cache()
    handler, ctx = load(write_tiny(tmp_path / "tiny"), cache)
    with caplog.at_level(logging.INFO, "ts.metrics.caching_metric"):
        for size in (1, 3, 3, 100):
            one = rest('{"instances": [[1, 2, 3], [4, 5, 6]]}', **{"x-abgate-sent-ns": "1"})
            call(handler, ctx, *itertools.repeat(one, size))
        deadline = time.monotonic() + 10
        while not any("abgate_queue_ns_count" in line for line in caplog.messages) and time.monotonic() < deadline:
            handler._tallied.wait(0.05)
    totals: dict[str, float] = {}
    for line in caplog.messages:
        name, _, rest_of_line = line.removeprefix("[METRICS]").partition(".")
        bound = line.partition("le:")[2].partition("|")[0]
        totals[name + bound] = totals.get(name + bound, 0) + float(rest_of_line.partition(":")[2].partition("|")[0])
    bounds = {bound: totals[f"abgate_batch_size_bucket{bound}"] for bound in ("1", "2", "4", "64", "+Inf")}
    assert bounds == {"1": 1, "2": 1, "4": 3, "64": 3, "+Inf": 4}
    assert (totals["abgate_batch_size_sum"], totals["abgate_batch_size_count"]) == (107, 4)
    assert (totals["abgate_batch_rows_sum"], totals["abgate_queue_ns_count"]) == (214, 107)
    assert "ModelName:tiny,ModelVersion:1.0" in caplog.messages[0]


def test_the_copied_handler_is_importable_alone_and_holds_one_class(tmp_path: Path) -> None:
    from ts.model_loader import ModelLoaderFactory
    from ts.utils.util import list_classes_from_module

    folder = write_tiny(tmp_path / "tiny")
    sys.path.insert(0, str(folder))
    try:
        module, function = ModelLoaderFactory.get_model_loader()._load_handler_file("handler.py")
    finally:
        sys.path.remove(str(folder))
        for name in ("handler", "handler_wire"):
            sys.modules.pop(name, None)
    assert (function, Path(module.wire.__file__).parent) == (None, folder)
    assert len(list_classes_from_module(module)) == 1
