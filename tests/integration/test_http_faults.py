"""Arms that fail, each in its way: the client gets the failure's own status with the arm's name, the record its kind."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from http_harness import BODY, DEADLINE_S, PREDICT, Client, Gate, gateway, request, until

from gateway.servers.http import HttpSettings
from gateway.upstream.fake import Behaviour, FakeServer, held, raw, reply, reset, response

OK = response()

FAILURES: list[tuple[str, Behaviour, int, str]] = [
    ("reset", reset(), 502, "upstream_reset"),
    ("closed before an answer", raw(b"", close=True), 502, "upstream_reset"),
    ("half a head", raw(OK[:30], close=True), 502, "upstream_reset"),
    ("half a body", raw(OK[:-5], close=True), 502, "upstream_reset"),
    (
        "half a chunk",
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc", close=True),
        502,
        "upstream_reset",
    ),
    ("garbage", raw(b"\x00\xffgarbage\r\n\r\n"), 502, "upstream_invalid"),
    ("not HTTP/1", raw(b"HTTP/7.1 200 OK\r\ncontent-length: 0\r\n\r\n"), 502, "upstream_invalid"),
    (
        "two lengths",
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}"),
        502,
        "upstream_invalid",
    ),
    ("a bad chunk", raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"), 502, "upstream_invalid"),
    ("endless head", raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000), 502, "upstream_invalid"),
    ("nothing in it", reply(200, b""), 502, "upstream_invalid"),
    ("no content", raw(b"HTTP/1.1 204 None\r\n\r\n"), 502, "upstream_invalid"),
    ("a redirect", reply(302, b"", location="http://elsewhere/"), 502, "upstream_invalid"),
    ("switching", raw(b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), 502, "upstream_invalid"),
    ("500", reply(500, b'{"error": "op failed"}'), 502, "upstream_error"),
    ("501", reply(501, b"x"), 502, "upstream_error"),
    ("507", reply(507, b'{"code": 507, "type": "E", "message": "Worker died."}', close=True), 502, "upstream_error"),
    ("503", reply(503, b'{"code": 503, "type": "E", "message": "no worker"}'), 503, "upstream_unavailable"),
    ("504", reply(504, b""), 504, "upstream_timeout"),
    ("400", reply(400, b'{"error": "bad shape"}'), 400, "upstream_rejected"),
    ("404", reply(404, b'{"error": "Servable not found"}'), 404, "upstream_rejected"),
    ("429", reply(429, b'{"error": "queue full"}'), 429, "upstream_rejected"),
    ("401", reply(401, b""), 502, "upstream_error"),
]


@pytest.mark.parametrize("kind", ["tensorflow_serving", "torchserve"])
@pytest.mark.parametrize(("behaviour", "status", "error_kind"), [pytest.param(*f[1:], id=f[0]) for f in FAILURES])
async def test_a_failing_arm(behaviour: Behaviour, status: int, error_kind: str, kind: str) -> None:
    async with FakeServer() as arm, gateway({"a": arm.address, "b": arm.address}, kinds={"a": kind}) as gate:
        arm.script.append(behaviour)
        client = await gate.connect()
        answer = await client.ask(request(x_abgate_arm="a"))
        assert answer.status == status
        assert list(json.loads(answer.body)) == ["error"]
        assert answer.headers["x-abgate-arm"] == "a"
        assert answer.headers["content-type"] == "application/json"
        record = (await gate.recorded(1))[0]
        assert (record.status, record.error_kind, record.served_arm) == (status, error_kind, "a")
        assert record.upstream_ns > 0
        assert gate.arms["a"].in_flight == 0
        assert len(arm.requests) == 1  # sent once, never again
        # the next request is fine, on the same client connection
        assert (await client.ask(request(x_abgate_arm="a"))).status == 200
        await client.close()


async def test_a_dead_arm_is_refused_and_the_other_goes_on() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{probe.getsockname()[1]}"
        async with FakeServer() as arm, gateway({"dead": nowhere, "alive": arm.address}) as gate:
            answers = [await gate.ask(request(x_user_id=f"u{number}")) for number in range(40)]
            for answer in answers:
                if answer.headers["x-abgate-arm"] == "dead":
                    assert answer.status == 503
                    assert "refused the connection" in json.loads(answer.body)["error"]
                else:
                    assert answer.status == 200
            kinds = {(record.served_arm, record.error_kind) for record in gate.records}
            assert kinds == {("dead", "upstream_refused"), ("alive", "")}
            assert gate.arms["dead"].in_flight == 0


async def test_errors_keep_the_message_of_the_arm() -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}, kinds={"a": "torchserve"}) as gate:
        arm.script.append(reply(507, b'{"code": 507, "type": "InternalServerException", "message": "Worker died."}'))
        assert json.loads((await gate.ask(request())).body)["error"] == "arm 'a' answered 507: Worker died."
        arm.script.append(reply(400, b'{"error": "input x: bad"}'))
        assert json.loads((await gate.ask(request())).body)["error"] == "input x: bad"
        arm.script.append(reply(400, b'{"code": 400, "type": "InvalidKeyException", "message": "Token"}'))
        answer = await gate.ask(request())
        assert (answer.status, gate.records[-1].error_kind) == (502, "upstream_error")


# TorchServe's way


async def test_torchserve_requests_and_what_its_replies_tell() -> None:
    tell = {"x_abgate_batch_size": "4", "x_abgate_batch_rows": "9", "x_abgate_queue_ns": "12345"}
    async with FakeServer(reply(**tell)) as arm, gateway({"a": arm.address}, kinds={"a": "torchserve"}) as gate:
        assert (await gate.ask(request())).status == 200
        seen = arm.requests[0]
        assert (seen.method, seen.path, seen.body) == ("POST", "/predictions/m", BODY)
        assert seen.headers["content-type"] == "application/octet-stream"
        assert seen.headers["x-abgate-format"] == "tfs-json"
        assert int(seen.headers["x-abgate-sent-ns"]) > 10**18
        record = gate.records[0]
        assert (record.batch_size, record.batch_rows, record.queue_ns) == (4, 9, 12345)
        assert record.protocol_out == "torchserve-http"
        await gate.ask(request(path="/v1/models/m/versions/2:predict"))
        assert arm.requests[1].path == "/predictions/m/2"
        arm.script.append(reply(x_abgate_batch_size="-3", x_abgate_queue_ns="soon"))
        await gate.ask(request())
        assert (gate.records[2].batch_size, gate.records[2].queue_ns) == (-1, -1)


async def test_an_own_handler_gets_plain_json_and_needs_no_content_type_of_its_own() -> None:
    options: dict[str, Any] = {"kinds": {"a": "torchserve"}, "arm_format": "tfs-json"}
    plain = raw(b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\n[]")
    async with FakeServer(plain) as arm, gateway({"a": arm.address}, **options) as gate:
        answer = await gate.ask(request())
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert arm.requests[0].headers["content-type"] == "application/json"
        assert not {name for name in arm.requests[0].headers if name.startswith("x-abgate")}


async def test_a_connection_is_not_used_after_an_error_of_torchserve() -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}, kinds={"a": "torchserve"}) as gate:
        arm.script.append(reply(503, b"{}"))
        statuses = [(await gate.ask(request())).status for _ in range(3)]
        assert statuses == [503, 200, 200]
        assert [seen.connection for seen in arm.requests] == [0, 1, 1]


# Connections


async def test_answers_of_every_framing() -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}) as gate:
        client = await gate.connect()
        for data, close in (
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n1\r\n \r\n0\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\r\n\r\n{} ", True),  # as long as the connection
            (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n{} ", True),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{} ", False),
            (b"HTTP/1.1 103 Early\r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{} ", False),
        ):
            arm.script.append(raw(data, close=close))
            answer = await client.ask(request())
            assert (answer.status, answer.body) == (200, b"{} ")
        await client.close()


@pytest.mark.parametrize(
    "surplus",
    [
        response(body=b'{"poison": 1}'),
        response(body=b'{"poison": 1}')[:20],
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"\r\n",
        b"x",
    ],
)
async def test_surplus_bytes_never_answer_the_next_request(surplus: bytes) -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}) as gate:
        client = await gate.connect()
        for _ in range(3):
            arm.script.append(raw(OK + surplus))
            assert (await client.ask(request())).body == b'{"predictions":[[0.5]]}'
        assert [seen.connection for seen in arm.requests][-1] >= (2 if surplus.strip() else 0)
        await client.close()


async def test_an_idle_connection_that_the_server_closed_is_not_written_to() -> None:
    """Nothing was sent on it: another connection is opened, and no request is lost or sent twice."""
    async with FakeServer(reply(close=False)) as arm, gateway({"a": arm.address}) as gate:
        client = await gate.connect()
        for _ in range(5):
            arm.script.append(reply(close=False))
            assert (await client.ask(request())).status == 200
            for task in arm._tasks:
                task.cancel()  # the server ends every connection it has
            await asyncio.sleep(0.02)
        assert [seen.connection for seen in arm.requests] == [0, 1, 2, 3, 4]
        await client.close()


async def test_a_reset_after_writing_is_never_sent_again() -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}) as gate:
        client = await gate.connect()
        assert (await client.ask(request())).status == 200
        arm.script.append(reset())
        assert (await client.ask(request())).status == 502
        assert len(arm.requests) == 2
        await client.close()


async def test_connections_are_shared_and_bounded() -> None:
    gate_open = asyncio.Event()
    async with FakeServer(held(gate_open)) as arm, gateway({"a": arm.address}, limit=5) as gate:
        clients = [await gate.connect() for _ in range(8)]
        for client in clients:
            await client.send(request())
        await arm.seen(5)
        refused = await asyncio.gather(*(client.answer() for client in clients[5:]))
        assert {(answer.status, answer.headers["retry-after"]) for answer in refused} == {(429, "1")}
        assert {record.error_kind for record in gate.records} == {"overloaded"}
        gate_open.set()
        answers = await asyncio.gather(*(client.answer() for client in clients[:5]))
        assert {answer.status for answer in answers} == {200}
        assert (len(arm.requests), arm.connections) == (5, 5)
        for client in clients:
            assert (await client.ask(request())).status == 200
        assert arm.connections == 5


# Time


async def connected(gate: Gate, arm: FakeServer) -> Client:
    """A client of a gateway that has its connection to arm a: a short time is then the answer's, not the connection's too."""
    client = await gate.connect()
    status = 0
    async with asyncio.timeout(DEADLINE_S):
        while status != 200:
            arm.script.append(reply())
            status = (await client.ask(request())).status
            await until(lambda: gate.arms["a"].in_flight == 0)
    for seen in (arm.script, arm.requests, gate.records):
        seen.clear()
    return client


async def test_a_slow_arm_is_a_timeout_and_its_work_keeps_its_place() -> None:
    gate_open = asyncio.Event()
    settings = HttpSettings(timeout_s=0.3)
    async with FakeServer(held(gate_open)) as arm, gateway({"a": arm.address}, settings=settings) as gate:
        client = await connected(gate, arm)
        answer = await client.ask(request())
        assert (answer.status, answer.headers["x-abgate-arm"]) == (504, "a")
        assert "did not answer within 0.3 s" in json.loads(answer.body)["error"]
        record = gate.records[0]
        assert (record.error_kind, record.served_arm) == ("upstream_timeout", "a")
        assert 0.25e9 < record.upstream_ns < 2e9
        assert gate.arms["a"].in_flight == 1
        gate_open.set()
        await until(lambda: gate.arms["a"].in_flight == 0)
        assert (await client.ask(request())).status == 200
        assert len(gate.records) == 2
        await client.close()


async def test_abandoned_work_is_cut_after_its_limit() -> None:
    settings = HttpSettings(timeout_s=0.2, abandon_factor=15)
    async with FakeServer(held(asyncio.Event())) as arm, gateway({"a": arm.address}, settings=settings) as gate:
        client = await connected(gate, arm)
        assert (await client.ask(request())).status == 504
        assert (gate.arms["a"].in_flight, arm.open) == (1, 1)
        await until(lambda: gate.arms["a"].in_flight == 0)
        await until(lambda: not gate.plane.in_flight)
        assert len(gate.records) == 1
        await client.close()


@pytest.mark.parametrize(
    ("value", "status"), [("0.05", 504), ("0", 400), ("-1", 400), ("nan", 400), ("inf", 400), ("x", 400)]
)
async def test_x_request_timeout(value: str, status: int) -> None:
    async with FakeServer(held(asyncio.Event())) as arm, gateway({"a": arm.address}) as gate:
        client = await connected(gate, arm)
        assert (await client.ask(request(x_request_timeout=value))).status == status
        await arm.seen(1 if status == 504 else 0)
        assert len(arm.requests) == (1 if status == 504 else 0)
        await client.close()


async def test_the_configured_time_is_the_most_a_client_can_ask_for() -> None:
    settings = HttpSettings(timeout_s=0.1)
    async with FakeServer(held(asyncio.Event())) as arm, gateway({"a": arm.address}, settings=settings) as gate:
        client = await connected(gate, arm)
        assert (await client.ask(request(x_request_timeout="9999"))).status == 504
        await arm.seen(1)
        assert len(arm.requests) == 1
        await client.close()


async def test_time_runs_out_while_waiting_for_a_connection() -> None:
    """Nothing was sent: the place is free again at once."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        full = [socket.socket() for _ in range(4)]  # the backlog is full: a connect neither succeeds nor fails
        for one in full:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        async with gateway({"a": address}, settings=HttpSettings(timeout_s=0.2)) as gate:
            assert (await gate.ask(request())).status == 504
            assert gate.arms["a"].in_flight == 0
        for one in full:
            one.close()


async def test_a_big_reply_passes_whole() -> None:
    big = b'{"predictions":"' + bytes(range(97, 123)) * 200_000 + b'"}'
    async with FakeServer(reply(body=big)) as arm, gateway({"a": arm.address}) as gate:
        assert (await gate.ask(request())).body == big
        assert arm.requests[0].path == PREDICT
        assert gate.records[0].bytes_out == len(big)


async def test_a_record_names_the_version_that_answered_where_it_is_known() -> None:
    async with FakeServer() as arm, gateway({"a": arm.address}) as gate:
        for versions in (None, frozenset({"3"}), frozenset({"3", "4"})):
            gate.arms["a"].versions = versions
            assert (await gate.ask(request())).status == 200
        assert (await gate.ask(request(b"{}"))).status == 400  # no version of the arm's saw it
        assert [record.version for record in await gate.recorded(4)] == ["", "3", "", ""]
