"""Predict through the gateway's gRPC server on either arm: answers, refusals, failures, deadlines, clients that leave."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_doubles import SIGNATURE, Gate, gate, request

from gateway.dataplane import Route
from gateway.experiments.assignment import choose, edges, position
from gateway.protocol import tfserving_grpc as codec
from gateway.protocol.descriptors import message_class

Code = grpc.StatusCode


async def refused(call: Any) -> Any:
    """The error a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def nothing_forwarded(it: Gate) -> bool:
    return not it.tf.seen and not it.pt.seen


@pytest.mark.parametrize("offload", [1 << 20, 1])
async def test_the_same_answer_from_either_arm(offload: int) -> None:
    async with gate(offload_bytes=offload) as it:
        payload = request([[1, 2], [3, 4]])
        for arm in ("tf", "torch"):
            call = it.predict(payload, arm, x_request_id=f"id-{arm}", x_user_id="u")
            answer = codec.parse_response(await call)
            assert list(answer.outputs["y"].float_val) == [3.0, 7.0]
            assert [dim.size for dim in answer.outputs["y"].tensor_shape.dim] == [2, 1]
            assert answer.model_spec.name == "digits"
            assert answer.model_spec.signature_name == "serving_default"
            headers = dict(await call.trailing_metadata())
            assert headers["x-request-id"] == f"id-{arm}"
            assert headers["x-abgate-arm"] == arm
            assert headers["x-abgate-experiment"] == "exp"
            assert headers["x-abgate-assignment"] == "forced"
            assert headers["server-timing"].startswith("gateway;dur=")
        assert it.tf.seen == [payload]
        first, second = await it.rows.until(2)
        assert (first.served_arm, first.protocol_in, first.protocol_out) == ("tf", "tfs-grpc", "tfs-grpc")
        assert (first.status, first.error_kind, first.rows, first.codec_ns) == (0, "", 2, 0)
        assert (second.served_arm, second.protocol_out) == ("torch", "torchserve-grpc")
        assert (second.batch_size, second.batch_rows) == (3, 5)
        assert second.queue_ns in (1000, 1001)
        assert second.codec_ns > 0
        assert (first.bytes_in, second.bytes_in) == (len(payload), len(payload))
        assert it.plane.in_flight == 0


async def test_assignment_by_unit_and_without_one() -> None:
    async with gate() as it:
        for unit in ("u1", "u2", "u3", "u4"):
            call = it.predict(request(), x_user_id=unit)
            await call
            headers = dict(await call.trailing_metadata())
            expected = ("torch", "tf")[choose(position("salt", unit), edges([50, 50]))]
            assert (headers["x-abgate-arm"], headers["x-abgate-assignment"]) == (expected, "sticky")
        call = it.predict(request())
        await call
        assert dict(await call.trailing_metadata())["x-abgate-assignment"] == "random"
        call = it.predict(request(), "tf", x_abgate_block="b1")
        await call
        assert dict(await call.trailing_metadata())["x-abgate-assignment"] == "block"


async def test_metadata_passed_on() -> None:
    async with gate(forward_headers=("X-Tenant",)) as it:
        await it.predict(request(), "tf", traceparent="00-a-b-01", x_request_id="r", x_tenant="t", x_other="no")
        passed = it.tf.metadata[0]
        assert (passed["traceparent"], passed["x-request-id"], passed["x-tenant"]) == ("00-a-b-01", "r", "t")
        assert "x-other" not in passed
        call = it.predict(request(), "tf")
        await call
        assert it.tf.metadata[1]["x-request-id"] == dict(await call.trailing_metadata())["x-request-id"] != "r"


async def test_versions_and_labels() -> None:
    async with gate() as it:
        it.arms["tf"].versions = frozenset({"7"})
        it.arms["torch"].versions = frozenset({"7.0"})
        message_type = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")
        for payload in (request(version="7"), request(label="stable")):
            await it.predict(payload, "tf")
            assert codec.parse_request(it.tf.seen[-1]).model_spec.version.value == 7
        await it.predict(request(version="7"), "torch")
        assert message_type.FromString(it.pt.seen[-1]).model_version == "7.0"
        error = await refused(it.predict(request(version="8"), "tf"))
        assert (error.code(), error.details()) == (
            Code.NOT_FOUND,
            "Servable not found for request: Specific(digits, 8)",
        )
        error = await refused(it.predict(request(label="canary"), "tf"))
        assert (error.code(), error.details()) == (Code.INVALID_ARGUMENT, "Unrecognized servable version label: canary")


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        (b"\xff\xff\xff", Code.INVALID_ARGUMENT, "is no tensorflow.serving.PredictRequest"),
        (b"", Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (request(model="other"), Code.NOT_FOUND, "Servable not found for request: Latest(other)"),
        (request([[1, 2, 3]]), Code.INVALID_ARGUMENT, "must have shape [-1, 2]"),
        (request([[1, 2]] * 9), Code.RESOURCE_EXHAUSTED, "9 rows, at most 8"),
        (request(signature_name="nope"), Code.FAILED_PRECONDITION, 'Serving signature key "nope" not found.'),
        (request(outputs=("q",)), Code.INVALID_ARGUMENT, "output tensor alias not found in signature: q"),
        (
            request().replace(b"\x0a\x01x", b"\x0a\x01z"),
            Code.INVALID_ARGUMENT,
            "Sent extra: {z}. Missing but required: {x}.",
        ),
    ],
)
@pytest.mark.parametrize("arm", ["tf", "torch"])
async def test_a_bad_request_reaches_no_backend(payload: bytes, code: Any, text: str, arm: str) -> None:
    async with gate() as it:
        call = it.predict(payload, arm)
        error = await refused(call)
        assert error.code() is code
        assert text in error.details()
        assert "x-request-id" in dict(await call.trailing_metadata())
        assert nothing_forwarded(it)
        (record,) = await it.rows.until(1)
        assert (record.status, record.served_arm) == (code.value[0], "")
        assert record.error_kind
        assert it.arms[arm].in_flight == 0


async def test_a_forced_arm_where_that_is_not_allowed() -> None:
    async with gate(forced=False) as it:
        error = await refused(it.predict(request(), "tf"))
        assert error.code() is Code.PERMISSION_DENIED
        assert nothing_forwarded(it)


@pytest.mark.parametrize(("values", "records"), [(1100, 1), (4000, 0)])
async def test_a_body_over_the_limit(values: int, records: int) -> None:
    """Far over it, grpc does not even take the message in: then there is no record."""
    async with gate(body_limit=4096) as it:
        error = await refused(it.predict(request([[0.0] * values]), "tf"))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert nothing_forwarded(it)
        assert [record.error_kind for record in it.rows.records] == ["too_large"] * records


@pytest.mark.parametrize(
    ("code", "seen", "kind"),
    [
        (Code.INVALID_ARGUMENT, Code.INVALID_ARGUMENT, "upstream_rejected"),
        (Code.RESOURCE_EXHAUSTED, Code.RESOURCE_EXHAUSTED, "upstream_rejected"),
        (Code.UNAVAILABLE, Code.UNAVAILABLE, "upstream_unavailable"),
        (Code.INTERNAL, Code.UNAVAILABLE, "upstream_error"),
        (Code.UNKNOWN, Code.UNAVAILABLE, "upstream_error"),
        (Code.DEADLINE_EXCEEDED, Code.DEADLINE_EXCEEDED, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("arm", ["tf", "torch"])
async def test_an_arms_own_error(code: Any, seen: Any, kind: str, arm: str) -> None:
    async def fail(payload: bytes, context: Any) -> bytes:
        await context.abort(code, "its own words")
        return b""

    async with gate() as it:
        it.tf.answer = it.pt.answer = fail
        call = it.predict(request(), arm)
        error = await refused(call)
        assert (error.code(), error.details()) == (seen, "its own words")
        assert dict(await call.trailing_metadata())["x-abgate-arm"] == arm
        (record,) = await it.rows.until(1)
        assert (record.error_kind, record.served_arm, record.status) == (kind, arm, seen.value[0])
        assert it.arms[arm].in_flight == 0


@pytest.mark.parametrize("arm", ["tf", "torch"])
@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b'{"a":1}'])
async def test_an_answer_that_is_none(arm: str, garbage: bytes) -> None:
    async def answer(payload: bytes, context: Any) -> bytes:
        return garbage

    async with gate() as it:
        it.tf.answer = it.pt.answer = answer
        error = await refused(it.predict(request(), arm))
        assert error.code() is Code.UNAVAILABLE
        (record,) = await it.rows.until(1)
        assert record.error_kind == "upstream_invalid"


async def test_the_handlers_status_inside_the_envelope() -> None:
    async def answer(payload: bytes, context: Any) -> bytes:
        head = b'{"status":400,"error":"x is odd"}'
        message = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")
        sealed: bytes = message(prediction=b"ABG1" + len(head).to_bytes(4, "little") + head).SerializeToString()
        return sealed

    async with gate() as it:
        it.pt.answer = answer
        error = await refused(it.predict(request(), "torch"))
        assert (error.code(), error.details()) == (Code.INVALID_ARGUMENT, "x is odd")


async def test_a_dead_arm_is_refused_and_leaves_the_other_alone() -> None:
    async with gate() as it:
        await it.arms["tf"].grpc.close()
        dead = type(it.arms["tf"].grpc)("127.0.0.1:1", "tensorflow_serving", "digits", None)
        it.arms["tf"].grpc = dead
        error = await refused(it.predict(request(), "tf"))
        assert error.code() is Code.UNAVAILABLE
        await it.predict(request(), "torch")
        first, second = await it.rows.until(2)
        assert (first.error_kind, first.served_arm) == ("upstream_refused", "tf")
        assert second.error_kind == ""


async def test_a_deadline_ends_the_request_but_not_the_arms_work() -> None:
    release = asyncio.Event()

    async def slow(payload: bytes, context: Any) -> bytes:
        await release.wait()
        return b""

    async with gate(timeout_s=0.05) as it:
        it.tf.answer = slow
        error = await refused(it.predict(request(), "tf", timeout=None))
        assert error.code() is Code.DEADLINE_EXCEEDED
        assert "arm 'tf' gave no answer within 0.050 s" in error.details()
        (record,) = await it.rows.until(1)
        assert (record.error_kind, record.status, record.served_arm) == ("upstream_timeout", 4, "tf")
        assert record.upstream_ns >= 50_000_000
        assert it.arms["tf"].in_flight == 1
        assert it.plane.in_flight == 0
        release.set()
        await it.idle()


async def test_the_clients_own_deadline() -> None:
    release = asyncio.Event()

    async def slow(payload: bytes, context: Any) -> bytes:
        await release.wait()
        return b""

    async with gate() as it:
        it.pt.answer = slow
        error = await refused(it.predict(request(), "torch", timeout=0.1))
        assert error.code() is Code.DEADLINE_EXCEEDED
        (record,) = await it.rows.until(1)
        assert (record.error_kind, record.status) == ("upstream_timeout", 4)
        assert it.pt.remaining[0] <= 0.1 + 30
        assert it.arms["torch"].in_flight == 1
        release.set()
        await it.idle()


async def test_a_client_that_leaves_keeps_its_place_on_the_arm() -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def slow(payload: bytes, context: Any) -> bytes:
        reached.set()
        await release.wait()
        return b""

    async with gate(limit=1) as it:
        it.tf.answer = slow
        call = it.predict(request(), "tf", timeout=None)
        async with asyncio.timeout(5):
            await reached.wait()
        call.cancel()
        (record,) = await it.rows.until(1)
        assert (record.error_kind, record.status, record.served_arm) == ("client_gone", 1, "tf")
        assert it.plane.in_flight == 0
        error = await refused(it.predict(request(), "tf"))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert "arm 'tf' has 1 requests under way" in error.details()
        assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        release.set()
        await it.idle()
        assert len(it.tf.seen) == 1


async def test_a_form_that_passed_is_judged_again_by_another_signature() -> None:
    async with gate() as it:
        for start in (1.0, 5.0, 9.0):
            await it.predict(request([[start, 2]]), "tf")
        seen = len(it.tf.seen)
        old = it.plane.routes["digits"]
        narrow = replace(SIGNATURE, inputs=(replace(SIGNATURE.inputs[0], shape=(-1, 3)),))
        it.plane.routes["digits"] = Route(old.spec, old.arms, narrow)
        error = await refused(it.predict(request([[7, 2]]), "tf"))
        assert error.code() is Code.INVALID_ARGUMENT
        off = replace(old.spec, guard="off")
        it.plane.routes["digits"] = Route(off, old.arms, narrow)
        await it.predict(request([[8, 2]]), "tf")
        it.plane.routes["digits"] = Route(old.spec, old.arms, narrow)
        error = await refused(it.predict(request([[9, 2]]), "tf"))
        assert error.code() is Code.INVALID_ARGUMENT
        assert len(it.tf.seen) == seen + 1


@pytest.mark.parametrize("arm", ["tf", "torch"])
async def test_a_large_message(arm: str) -> None:
    """8 MiB of numbers: over grpc's own 4 MiB default on every side, and over the size from which threads translate."""
    rows = 1 << 20
    async with gate(rows_limit=rows, body_limit=16 << 20) as it:
        payload = request(np.ones((rows, 2), "<f4").tolist())
        for _ in range(2):  # the second by its pattern
            answer = codec.decode_response(await it.predict(payload, arm, timeout=30))
            assert answer.outputs[0].shape == (rows, 1)
            assert float(answer.outputs[0].data.sum()) == 2.0 * rows


async def test_only_asked_outputs_come_back_from_torchserve() -> None:
    async with gate() as it:
        answer = codec.parse_response(await it.predict(request(outputs=("y",)), "torch"))
        assert list(answer.outputs) == ["y"]


async def test_a_hundred_at_once_leave_a_hundred_records() -> None:
    async with gate(limit=200) as it:
        calls = [it.predict(request([[i, i]]), x_user_id=f"u{i}") for i in range(100)]
        answers = await asyncio.gather(*calls)
        values = [codec.parse_response(answer).outputs["y"].float_val[0] for answer in answers]
        assert values == [2.0 * i for i in range(100)]
        records = await it.rows.until(100)
        assert len({record.request_id for record in records}) == 100
        assert {record.served_arm for record in records} == {"tf", "torch"}
        assert len(it.tf.seen) + len(it.pt.seen) == 100
