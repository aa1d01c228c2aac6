"""The four codec steps of an exchange: read, encode, decode, answer; each timed, and each where it does not stop the loop.

Here lives only where a step runs: small ones at once, big binary ones in a thread, big JSON in a process of its own (JSON
holds the interpreter's lock). What the steps do is protocol's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, TypeVar

from gateway.clock import monotonic_ns
from gateway.dataplane import Call
from gateway.protocol.forms import ArmForm, ArmTerms, Asked, Message, Portable, Resuming
from gateway.protocol.oip_rest import HEAD_LENGTH
from gateway.protocol.signature_file import Signature
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor
from gateway.servers.codec_process import CodecProcess

T = TypeVar("T")
_JSON_WIRES = frozenset({"tfs-rest", "oip-rest", "torchserve-http"})
_TEXT_FACTOR = 3  # bytes of JSON to a byte of tensor, about


class Where(IntEnum):
    """Where a step runs."""

    HERE = 0
    THREAD = 1
    PROCESS = 2


class Codecs:
    """Runs steps; from binary bytes and from json bytes of JSON on, off the event loop. `close` ends the process."""

    def __init__(self, binary: int, json: int) -> None:
        self._binary = binary
        self._json = json
        self._process = CodecProcess()

    async def read(self, call: Call, asked: Asked, signature: Signature | None) -> tuple[InferRequest, Asked]:
        """The canonical request, and what answers it."""
        # is it big? first: isinstance with a Protocol looks at its attributes one by one, 50 us
        if getattr(asked, "text_bytes", 0) >= self._json and isinstance(asked, Portable):
            request, read = await self._timed(call, Where.PROCESS, _read, asked, signature)
            if isinstance(read, Resuming):
                read.resume(asked)
            return request, read
        limit = self._json if asked.wire == "torchserve-http" else self._binary
        where = Where.THREAD if call.bytes_in >= limit else Where.HERE
        return await self._timed(call, where, asked.request, signature), asked

    async def encode(self, call: Call, form: ArmForm, request: InferRequest, terms: ArmTerms) -> Message:
        """The arm's message."""
        text = (
            form.wire == "tfs-rest" or terms.form == "tfs-json" or (form.wire, terms.form) == ("oip-rest", "oip-json")
        )
        return await self._timed(call, self._of(request.inputs, text), form.encode, request, terms)

    async def decode(self, call: Call, form: ArmForm, message: Message, terms: ArmTerms) -> InferResponse:
        """The canonical answer."""
        text = form.wire == "tfs-rest" or terms.form == "tfs-json"
        text = text or (form.wire == "oip-rest" and HEAD_LENGTH not in message.headers)
        return await self._timed(call, self._size(len(message.body), text), form.decode, message, terms)

    async def answer(self, call: Call, asked: Asked, response: InferResponse, signature: Signature | None) -> Message:
        """The client's message."""
        where = self._of(response.outputs, asked.wire in _JSON_WIRES)
        if where is Where.PROCESS and not isinstance(asked, Portable):
            where = Where.THREAD
        return await self._timed(call, where, asked.answer, response, signature)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _of(self, tensors: Iterable[Tensor], text: bool) -> Where:
        size = sum(tensor.data.nbytes for tensor in tensors)
        return self._size(_TEXT_FACTOR * size if text else size, text)

    def _size(self, size: int, text: bool) -> Where:
        if text:
            return Where.PROCESS if size >= self._json else Where.HERE
        return Where.THREAD if size >= self._binary else Where.HERE

    async def _timed(self, call: Call, where: Where, function: Callable[..., T], *arguments: Any) -> T:
        begun = monotonic_ns()
        try:
            if where is Where.HERE:
                return function(*arguments)
            if where is Where.THREAD:
                return await aside(function, *arguments)
            return await self._process.run(function, *arguments)
        finally:
            call.codec_ns += monotonic_ns() - begun


async def aside(function: Callable[..., T], *arguments: Any) -> T:
    """Run a codec step in a thread: on the loop a big tensor would hold up every other request, of either arm."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


def _read(asked: Portable, signature: Signature | None) -> tuple[InferRequest, Asked]:
    """In the process: what was read, and without it what answers."""
    return asked.request(signature), asked.answerer()
