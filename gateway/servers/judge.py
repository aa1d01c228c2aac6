"""The guard in a process of its own, for bodies so big that judging them would stop the event loop.

A thread is not enough: parsing JSON holds the interpreter's lock from the first byte to the last (10 ms for 150,000 numbers),
and every other request would wait. The child reads frames on stdin, answers on stdout, and ends when stdin does, whatever
became of the gateway. It is started by the first big body; when it dies, the body is judged in the caller's thread.
"""

from __future__ import annotations

import contextlib
import signal
import struct
import subprocess
import sys
from functools import lru_cache
from typing import IO, cast

import orjson

from gateway.errors import ErrorKind, RequestError
from gateway.protocol.signature import Guard, Mode
from gateway.protocol.signature_file import Signature, from_dict

# parent -> child: lengths of the terms and of the body, then both; child -> parent: length of the verdict, then the verdict
_QUESTION = struct.Struct("<IQ")
_VERDICT = struct.Struct("<I")
_STOP_S = 2.0


def terms_of(signature: Signature | None, mode: Mode, rows_limit: int) -> bytes:
    """What the child needs to build the guard, as bytes."""
    return orjson.dumps({"signature": signature and signature.to_dict(), "mode": mode, "rows_limit": rows_limit})


class Judge:
    """The parent's side; for one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def rows(self, terms: bytes, body: bytes) -> int:
        """Rows of a body that may pass; blocks, without the interpreter's lock, until the child has judged.

        Raises RequestError as the guard does.
        """
        try:
            verdict = self._ask(terms, body)
        except (OSError, EOFError):
            self.close()
            verdict = _judge(terms, body)
        if "kind" in verdict:
            raise RequestError(cast(ErrorKind, verdict["kind"]), verdict["message"])
        return int(verdict["rows"])

    def close(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was still to be written to a dead child
                    pipe.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(self, terms: bytes, body: bytes) -> dict[str, str]:
        if self._process is None:
            command = [sys.executable, "-P", "-m", "gateway.servers.judge"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(_QUESTION.pack(len(terms), len(body)) + terms)
        stdin.write(body)
        stdin.flush()
        (length,) = _VERDICT.unpack(_exactly(stdout, _VERDICT.size))
        verdict: dict[str, str] = orjson.loads(_exactly(stdout, length))
        return verdict


def _judge(terms: bytes, body: bytes) -> dict[str, str]:
    try:
        return {"rows": str(_guard(terms).check(body))}
    except RequestError as error:
        return {"kind": error.kind, "message": error.message}


@lru_cache(maxsize=16)
def _guard(terms: bytes) -> Guard:
    document = orjson.loads(terms)
    signature = from_dict(document["signature"]) if document["signature"] else None
    return Guard(signature, document["mode"], document["rows_limit"])


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main() -> None:
    """The child: judge until stdin ends. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            terms_length, body_length = _QUESTION.unpack(_exactly(stdin, _QUESTION.size))
            terms, body = _exactly(stdin, terms_length), _exactly(stdin, body_length)
        except EOFError:
            return
        verdict = orjson.dumps(_judge(terms, body))
        stdout.write(_VERDICT.pack(len(verdict)) + verdict)
        stdout.flush()


if __name__ == "__main__":
    main()
