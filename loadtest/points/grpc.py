"""Requests over gRPC: bytes in and bytes out over a few channels.

A call is grpc.aio's own, with one task to follow it: no interceptor, no retry. Channels share no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Any

import grpc
import orjson

from gateway.protocol.descriptors import message_class
from loadtest.points.recorder import Recorder
from loadtest.points.spec import PointSpec
from loadtest.points.traffic import Traffic
from loadtest.targets import grpc_method, split_address

_MOST_CHANNELS = 8
_WITHOUT_ANSWER = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # one connection a channel
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # gRPC takes it for the time a connection may take to come up
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcSender:
    """Sends payloads by slot; every slot that was sent is told to `ended` exactly once, never within `send` itself."""

    def __init__(self, spec: PointSpec, traffic: Traffic, recorder: Recorder, ended: Callable[[int], None]) -> None:
        """A sender without a channel yet; made inside the running loop."""
        self._spec = spec
        self._recorder = recorder
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timeout = spec.timeout
        self._torchserve = spec.target.kind == "torchserve"
        self._bodies = traffic.bodies
        self._units = traffic.units
        self._named = spec.named
        self._name = traffic.name
        self._unit_header = spec.unit_header
        forced = [("x-abgate-arm", spec.arm)] if spec.arm else []
        forced += [("x-abgate-block", spec.block)] if spec.block else []
        self._forced = tuple(forced)
        self._offset = time_ns() - monotonic_ns()
        self._channels: list[Any] = []
        self._calls: list[dict[str, Any]] = []  # of each channel, by method
        self._methods = traffic.methods or [grpc_method(spec.target)] * len(traffic.bodies)
        self._flying: dict[int, Any] = {}

    async def open(self, count: int) -> None:
        """Open the channels and wait until they are connected, or a second where nobody answers."""
        spec = self._spec
        credentials = None
        if spec.target.tls_ca:
            roots = await asyncio.to_thread(Path(spec.target.tls_ca).read_bytes)
            credentials = grpc.ssl_channel_credentials(roots)
        host, port = split_address(spec.target.grpc, "grpc target")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for _ in range(spec.connections or min(count, _MOST_CHANNELS)):
            if credentials is not None:
                channel = grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
            else:
                channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            self._channels.append(channel)
            self._calls.append(
                {method: channel.unary_unary(method, _registered_method=True) for method in set(self._methods)}
            )
        ready = [asyncio.ensure_future(channel.channel_ready()) for channel in self._channels]
        _, waiting = await asyncio.wait(ready, timeout=1.0)
        for task in waiting:
            task.cancel()

    def send(self, slot: int) -> None:
        """Start the call of the slot's payload."""
        payload = self._recorder.payload[slot]
        body = self._bodies[payload]
        if self._torchserve:
            body += _sent(monotonic_ns() + self._offset)
        metadata = (
            (self._unit_header, self._units[self._recorder.unit[slot]]),
            ("x-request-id", f"{self._name}-{slot:x}"),
            *self._forced,
        )
        calls = self._calls
        call = calls[slot % len(calls)][self._methods[payload]](body, timeout=self._timeout, metadata=metadata)
        self._flying[slot] = self._loop.create_task(self._follow(slot, call))

    async def _follow(self, slot: int, call: Any) -> None:
        try:
            await self._note(slot, call)
        finally:
            if self._flying.pop(slot, None) is not None:
                self._ended(slot)

    async def _note(self, slot: int, call: Any) -> None:
        recorder = self._recorder
        try:
            body = await call
            recorder.done[slot] = monotonic_ns()
        except grpc.aio.AioRpcError as error:
            code = error.code()
            recorder.fail(slot, code.name.lower(), code.value[0])
            told = error.trailing_metadata()
            # without a word from a server UNAVAILABLE is the channel's own: there is no connection
            if code not in _WITHOUT_ANSWER and (code is not grpc.StatusCode.UNAVAILABLE or told):
                recorder.done[slot] = monotonic_ns()
        except asyncio.CancelledError:  # by `abandon`, or the channel was closed under the call
            if slot in self._flying:
                recorder.fail(slot, "cancelled", grpc.StatusCode.CANCELLED.value[0])
            return
        else:
            if self._torchserve:
                self._envelope(slot, body)
                return
            if recorder.wants(slot):
                recorder.keep(slot, body)
            told = await call.trailing_metadata()
        found = dict(told or ())
        if (timing := found.get("server-timing")) is not None:
            recorder.timing(slot, timing.encode("ascii"))
        if self._named:
            arm, assignment = found.get("x-abgate-arm", ""), found.get("x-abgate-assignment", "")
            recorder.named(slot, arm.encode("ascii"), assignment.encode("ascii"))

    def _envelope(self, slot: int, message: bytes) -> None:
        """Status, batch and queue time from the frame our TorchServe handler puts round its answer."""
        recorder = self._recorder
        begin = message.find(b"ABG1", 0, 32)
        try:
            end = begin + 8 + int.from_bytes(message[begin + 4 : begin + 8], "little")
            head = orjson.loads(message[begin + 8 : end])
            status = int(head["status"])
            recorder.batch[slot] = int(head.get("batch_size", -1))
            recorder.queue[slot] = int(head.get("queue_ns", -1))
        except (ValueError, KeyError, TypeError, OverflowError):
            recorder.fail(slot, "bad answer: no framed reply")
            return
        recorder.status[slot] = status
        if status != 200:
            recorder.fail(slot, f"http {status}", status)
        elif recorder.wants(slot):
            recorder.keep(slot, message)

    def abandon(self, slot: int) -> None:
        """The call has outlived its own deadline: end it."""
        task = self._flying.pop(slot, None)
        if task is None:
            return
        task.cancel()
        self._recorder.fail(slot, "deadline_exceeded", grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
        self._ended(slot)

    async def close(self) -> None:
        """Close the channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


def _sent(now: int) -> bytes:
    """An entry of PredictionsRequest.input to put behind a serialized request: parsers merge the two maps."""
    entry = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")()
    entry.input["x-abgate-sent-ns"] = b"%d" % now
    return bytes(entry.SerializeToString())
