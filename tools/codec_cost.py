"""What translation itself costs: every client protocol to every kind of arm and back, for small, middling and big tensors.

    python tools/codec_cost.py [--runs N] [--floats 64 3072 150528]

Prints, per pair, milliseconds of this thread's processor time for one request of so many floats (read by the client's codec,
written by the arm's) and its answer of 10 floats: median, and in brackets the least and the most of the runs. Processor time,
so that a busy machine shows as little as it can. What the gateway passes on untouched does not cost this. Under each table
stands what the parsers alone take for the same row-format text on this machine.
Never a timed test. Everything runs in this process: no sockets, no servers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import orjson
import simdjson
from rich.console import Console
from rich.table import Table

from gateway.protocol import (
    oip_binary,
    oip_grpc,
    oip_rest,
    tfserving_grpc,
    tfserving_rest,
    torchserve,
    torchserve_predictions,
)
from gateway.protocol.arm_forms import arm_forms
from gateway.protocol.descriptors import message_class
from gateway.protocol.forms import ArmTerms, ArmWire, Asked, Message
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.tensors import InferRequest, InferResponse, Tensor

FLOATS = (64, 3072, 150_528)
SHAPES = {3072: (32, 32, 3), 150_528: (224, 224, 3)}
MOST_BYTES = 1 << 30
ARMS: tuple[tuple[str, ArmWire, str], ...] = (
    ("tfs-rest", "tfs-rest", ""),
    ("tfs-grpc", "tfs-grpc", ""),
    ("oip-rest JSON", "oip-rest", oip_rest.JSON_FORM),
    ("oip-rest binary", "oip-rest", oip_rest.BINARY_FORM),
    ("oip-grpc", "oip-grpc", ""),
    ("torchserve-http", "torchserve-http", torchserve.OIP_BINARY),
    ("torchserve-grpc", "torchserve-grpc", torchserve.OIP_BINARY),
)
Client = Callable[[], Asked]


@dataclass(frozen=True)
class Sizes:
    """One model: a row of so many floats in, 10 out."""

    signature: Signature
    request: InferRequest
    answer: InferResponse


def sizes(floats: int) -> Sizes:
    """Random numbers, one row."""
    shape = SHAPES.get(floats, (floats,))
    values = np.random.default_rng(1).standard_normal((1, *shape), np.float32)
    signature = Signature(
        "m", "serving_default", (TensorSpec("x", "FP32", (-1, *shape)),), (TensorSpec("y", "FP32", (-1, 10)),)
    )
    request = InferRequest("m", (Tensor("x", "FP32", values),), signature_name="serving_default")
    return Sizes(signature, request, InferResponse("m", (Tensor("y", "FP32", values.reshape(-1)[:10].reshape(1, 10)),)))


def clients(of: Sizes) -> dict[str, Client]:
    """A client of every protocol with its request written out; each call reads it anew."""
    limits, terms = tfserving_grpc.Limits(1024, MOST_BYTES), ArmTerms("m", "", "", of.signature)
    rows = tfserving_rest.encode_request(of.request, column=False)
    grpc = tfserving_grpc.encode_request(of.request)
    listed = oip_rest.ARM.encode(of.request, ArmTerms("m", "", oip_rest.JSON_FORM, of.signature)).body
    binary = oip_rest.ARM.encode(of.request, ArmTerms("m", "", oip_rest.BINARY_FORM, of.signature))
    head = int(binary.headers[oip_rest.HEAD_LENGTH])
    infer = oip_grpc.ARM.encode(of.request, terms).body
    raw = of.request.inputs[0].data.tobytes()
    kind = message_class("org.pytorch.serve.grpc.inference.PredictionsRequest")
    predictions: bytes = kind(model_name="m", input={"data": raw}).SerializeToString()
    http = torchserve_predictions.HttpAsked
    return {
        "tfs-rest": lambda: tfserving_rest.PredictAsked(rows, "m", "", ""),
        "tfs-grpc": lambda: tfserving_grpc.PredictAsked(grpc, limits),
        "oip-rest JSON": lambda: oip_rest.InferAsked(listed, None, "m", ""),
        "oip-rest binary": lambda: oip_rest.InferAsked(binary.body, head, "m", ""),
        "oip-grpc": lambda: oip_grpc.InferAsked(infer, limits),
        "torchserve-http JSON": lambda: http(rows, "application/json", "m", ""),
        "torchserve-http raw": lambda: http(raw, "application/octet-stream", "m", ""),
        "torchserve-grpc raw": lambda: torchserve_predictions.GrpcAsked(predictions),
    }


def replies(of: Sizes) -> dict[str, Message]:
    """What an arm of every kind answers."""
    row = tfserving_rest.encode_response(of.answer, column=True)
    listed = oip_rest.InferAsked(b'{"inputs":[]}', None, "m", "").answer(of.answer, None)
    wants = b'{"inputs":[],"parameters":{"binary_data_output":true}}'
    binary = oip_rest.InferAsked(wants, None, "m", "").answer(of.answer, None)
    infer = message_class("inference.ModelInferRequest")(model_name="m").SerializeToString()
    limits = tfserving_grpc.Limits(1024, MOST_BYTES)
    handler = oip_binary.encode_response(of.answer)
    enveloped = message_class("org.pytorch.serve.grpc.inference.PredictionResponse")(
        prediction=torchserve.envelope({"status": 200, "batch_size": 1}, handler)
    )
    return {
        "tfs-rest": Message(row),
        "tfs-grpc": Message(tfserving_grpc.encode_response(of.answer, "serving_default")),
        "oip-rest JSON": listed,
        "oip-rest binary": binary,
        "oip-grpc": oip_grpc.InferAsked(infer, limits).answer(of.answer, None),
        "torchserve-http": Message(handler, {"x-abgate-batch-size": "1"}),
        "torchserve-grpc": Message(enveloped.SerializeToString()),
    }


def cost(ask: Client, arm: tuple[str, ArmWire, str], reply: Message, of: Sizes, runs: int) -> list[float]:
    """Milliseconds of each run: read, write, and the answer the other way."""
    form = arm_forms()[arm[1]]
    terms = ArmTerms("m", "", arm[2], of.signature)
    found: list[float] = []
    for turn in range(runs + 1):
        started = time.thread_time_ns()
        asked = ask()
        form.encode(asked.request(of.signature), terms)
        asked.answer(form.decode(reply, terms), of.signature)
        if turn:  # the first one compiles
            found.append((time.thread_time_ns() - started) / 1e6)
    return found


def alone(of: Sizes, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run that parsers take for the request as TF Serving's rows, with nothing judged or written."""
    rows = tfserving_rest.encode_request(of.request, column=False)
    parser: Any = simdjson.Parser()  # its types know no key of an object

    def array() -> object:
        return parser.parse(rows)["instances"].as_buffer(of_type="d")

    found: dict[str, list[float]] = {"orjson.loads": [], "simdjson's as_buffer": []}
    for turn in range(runs + 1):
        for name, call in (("orjson.loads", lambda: orjson.loads(rows)), ("simdjson's as_buffer", array)):
            started = time.thread_time_ns()
            call()
            if turn:
                found[name].append((time.thread_time_ns() - started) / 1e6)
    return found


def shown(found: list[float]) -> str:
    """Median and range."""
    digits = 3 if statistics.median(found) < 1 else 1
    return f"{statistics.median(found):.{digits}f} ({min(found):.{digits}f}-{max(found):.{digits}f})"


def table(floats: int, runs: int) -> Table:
    """Every client against every arm at one size; n runs each."""
    of = sizes(floats)
    answered = replies(of)
    title = f"Translation alone, {floats:,} floats in, 10 out: ms of processor time, median (range), n={runs}"
    made = Table(title=title, title_justify="left")
    for column in ("client", *(name for name, _, _ in ARMS)):
        made.add_column(column, justify="left" if column == "client" else "right")
    for name, ask in clients(of).items():
        made.add_row(name, *(shown(cost(ask, arm, answered[arm[0]], of, runs)) for arm in ARMS))
    return made


def main() -> int:
    """Print a table per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="runs that count; one more warms up")
    parser.add_argument("--floats", type=int, nargs="+", default=list(FLOATS), help="elements of the input's row")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 200)
    for floats in cast("list[int]", args.floats):
        console.print(table(floats, args.runs))
        parsers = (f"{name} {shown(found)} ms" for name, found in alone(sizes(floats), args.runs).items())
        console.print("parsers alone, the same text:", ", ".join(parsers), highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
