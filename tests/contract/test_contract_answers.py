"""The same cases over {REST, gRPC} x {TorchServe, TensorFlow side}, on the real processes: a client cannot tell the arms apart."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gateway.experiments.assignment import choose, edges, position
from tests.contract.stack import ARMS, ARTIFACTS, Answer, Stack

pytestmark = pytest.mark.servers
PROTOCOLS = ("rest", "grpc")
CELLS = [(protocol, arm) for protocol in PROTOCOLS for arm in ARMS]
cells = pytest.mark.parametrize(("protocol", "arm"), CELLS)


def good(answer: Answer) -> np.ndarray:
    """The rows of an answer that must be one."""
    assert answer.status == 200, answer.error
    rows: np.ndarray = answer.rows
    return rows


def pixels(count: int) -> np.ndarray:
    return np.load(ARTIFACTS / "digits" / "inputs.npz")["pixels"][:count]


@cells
def test_real_digits_get_their_labels(stack: Stack, protocol: str, arm: str) -> None:
    answer = stack.predict(protocol, "digits", pixels(64), x_abgate_arm=arm)
    assert (answer.status, answer.rows.shape) == (200, (64, 10)), answer.error
    labels = np.load(ARTIFACTS / "digits" / "inputs.npz")["label"][:64]
    assert (answer.rows.argmax(1) == labels).mean() > 0.97
    reference = good(stack.rest("digits", pixels(64), x_abgate_arm="tfserving"))
    np.testing.assert_allclose(answer.rows, reference, rtol=1e-4, atol=1e-4)


@cells
def test_mlp_matches_its_reference(stack: Stack, protocol: str, arm: str) -> None:
    data = np.load(ARTIFACTS / "mlp" / "inputs.npz")
    answer = stack.predict(protocol, "mlp", data["x"][:3], x_abgate_arm=arm)
    assert answer.status == 200, answer.error
    np.testing.assert_allclose(answer.rows, data["out:output_0"][:3], rtol=1e-3, atol=1e-3)


@cells
def test_an_answer_says_where_it_came_from(stack: Stack, protocol: str, arm: str) -> None:
    headers = stack.predict(
        protocol, "digits", pixels(1), x_abgate_arm=arm, x_request_id=f"id-{protocol}-{arm}"
    ).headers
    told = {
        name: headers[name] for name in ("x-abgate-arm", "x-abgate-assignment", "x-abgate-experiment", "x-request-id")
    }
    assert told == {
        "x-abgate-arm": arm,
        "x-abgate-assignment": "forced",
        "x-abgate-experiment": "digits-servers",
        "x-request-id": f"id-{protocol}-{arm}",
    }
    assert {part.split(";")[0] for part in headers["server-timing"].split(", ")} == {"gateway", "codec", "upstream"}


@cells
@pytest.mark.parametrize(
    ("name", "status"), [("/versions/1", 200), ("/labels/stable", 200), ("/versions/9", 404), ("/labels/none", 400)]
)
def test_versions_and_labels(stack: Stack, protocol: str, arm: str, name: str, status: int) -> None:
    answer = stack.predict(protocol, "digits", pixels(1), name=name, x_abgate_arm=arm)
    assert answer.status == status, answer.error
    text = {
        404: "Servable not found for request: Specific(digits, 9)",
        400: "Unrecognized servable version label: none",
    }
    assert text.get(status, "") in answer.error


@cells
def test_nan_and_infinity_survive(stack: Stack, protocol: str, arm: str) -> None:
    data = np.zeros((2, 3072), np.float32)
    data[0, 0] = np.inf
    data[1] = np.nan
    answer = stack.predict(protocol, "mlp", data, x_abgate_arm=arm)
    assert answer.status == 200, answer.error
    assert not np.isfinite(answer.rows[0]).all()
    assert np.isnan(answer.rows[1]).any()


@pytest.mark.parametrize("arm", ARMS)
def test_column_format_and_gzip(stack: Stack, arm: str) -> None:
    body = gzip.compress(json.dumps({"inputs": {"pixels": pixels(2).tolist()}}).encode())
    answer = stack.send("POST", "/v1/models/digits:predict", body, content_encoding="gzip", x_abgate_arm=arm)
    assert answer.status == 200, answer.error
    reference = stack.rest("digits", pixels(2), x_abgate_arm="tfserving").rows
    outputs = answer.rows["outputs"]
    np.testing.assert_allclose(
        outputs["output_0"] if isinstance(outputs, dict) else outputs, reference, rtol=1e-4, atol=1e-4
    )


BAD: dict[str, tuple[np.ndarray, int]] = {
    "wrong rank, which kills a TensorFlow Serving": (np.zeros((1, 64), np.float32), 400),
    "rank 3": (np.zeros((1, 8, 8), np.float32), 400),
    "rank 5": (np.zeros((1, 8, 8, 1, 1), np.float32), 400),
    "a channel too many": (np.zeros((1, 8, 8, 2), np.float32), 400),
    "a column too few": (np.zeros((1, 8, 7, 1), np.float32), 400),
    "no rows": (np.zeros((0, 8, 8, 1), np.float32), 400),
    "too many rows": (np.zeros((65, 8, 8, 1), np.float32), 413),
}


@cells
@pytest.mark.parametrize("case", BAD)
def test_the_guard_refuses_what_no_server_may_see(stack: Stack, protocol: str, arm: str, case: str) -> None:
    rows, status = BAD[case]
    if case == "too many rows" and protocol == "rest":
        status = 413
    answer = stack.predict(protocol, "digits", rows, x_abgate_arm=arm)
    assert answer.status == status, (answer.status, answer.error)
    assert answer.error


def test_no_server_saw_a_refused_request(stack: Stack) -> None:
    """Counted by the servers themselves: after every bad body on both protocols neither has served one request more."""
    counters = {"torchserve": "ts_inference_requests_total", "tfserving": ":tensorflow:serving:request_count"}
    before = {arm: stack.scrape(arm, pattern) for arm, pattern in counters.items()}
    pids = {arm: told["pid"] for arm, told in stack.backends()["backends"].items()}
    for rows, _ in BAD.values():
        for protocol, arm in CELLS:
            assert stack.predict(protocol, "digits", rows, x_abgate_arm=arm).status in (400, 413)
    for body in (b"", b"{", b'{"instances": 1}', b'{"instances": [[[["0"]]]]}', b'{"inputs": {"y": [1]}}', b"[1]"):
        assert stack.send("POST", "/v1/models/digits:predict", body).status == 400
    twice = json.dumps({"instances": [[0.5] * 64]})[:-1] + ', "instances": ' + json.dumps(pixels(1).tolist()) + "}"
    assert stack.send("POST", "/v1/models/digits:predict", twice.encode()).status == 400
    assert {arm: stack.scrape(arm, pattern) for arm, pattern in counters.items()} == before
    assert {arm: told["pid"] for arm, told in stack.backends()["backends"].items()} == pids
    for protocol, arm in CELLS:
        assert stack.predict(protocol, "digits", pixels(1), x_abgate_arm=arm).status == 200


def test_a_unit_keeps_its_arm_over_both_protocols(stack: Stack) -> None:
    seen: dict[str, set[str]] = {}
    weights = [50, 50]
    for number in range(40):
        unit = f"user-{number}"
        expected = ARMS[choose(position("7f3a", unit), edges(weights))]
        for protocol in PROTOCOLS:
            headers = stack.predict(protocol, "digits", pixels(1), x_user_id=unit).headers
            assert headers["x-abgate-assignment"] == "sticky"
            seen.setdefault(expected, set()).add(headers["x-abgate-arm"])
    assert seen == {arm: {arm} for arm in ARMS}


def test_answers_do_not_mix_under_load(stack: Stack) -> None:
    """64 at once, every one with another picture: each caller gets its own answer, whoever shared its batch."""
    data = pixels(256)
    reference = np.concatenate(
        [stack.rest("digits", data[at : at + 64], x_abgate_arm="tfserving").rows for at in range(0, 256, 64)]
    )

    def one(number: int) -> tuple[int, Any]:
        protocol, arm = CELLS[number % 4]
        return number, stack.predict(protocol, "digits", data[number : number + 1], x_abgate_arm=arm)

    with ThreadPoolExecutor(64) as pool:
        for number, answer in pool.map(one, range(256)):
            assert answer.status == 200, answer.error
            np.testing.assert_allclose(answer.rows[0], reference[number], rtol=1e-4, atol=1e-4)


def test_status_and_metadata_do_not_depend_on_the_arm(stack: Stack) -> None:
    versions = stack.send("GET", "/v1/models/digits").rows["model_version_status"]
    assert [(entry["version"], entry["state"]) for entry in versions] == [("1", "AVAILABLE")]
    metadata = stack.send("GET", "/v1/models/digits/metadata").rows
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    dims = [dim["size"] for dim in signature["inputs"]["pixels"]["tensor_shape"]["dim"]]
    assert (signature["inputs"]["pixels"]["dtype"], dims) == ("DT_FLOAT", ["-1", "8", "8", "1"])
    assert stack.send("GET", "/v1/models/nobody").status == 404
