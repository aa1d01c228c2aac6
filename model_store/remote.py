"""Calls a server already running over REST: TensorFlow Serving's predict, or TorchServe's predictions with the same body.

Here live bodies and replies of TensorFlow Serving's REST API (row format) and the two addresses; comparing lives in `parity`.
"""

import base64
import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from gateway.errors import AbgateError
from gateway.protocol.signature_file import Signature, TensorSpec
from model_store import served_signature
from model_store.arrays import DTYPES

Kind = Literal["tensorflow", "torchserve"]
TENSORFLOW: Kind = "tensorflow"
TORCHSERVE: Kind = "torchserve"
TIMEOUT_SECONDS = 60.0
_ROWS_AT_ONCE = 64
# a TorchServe as shipped refuses bodies over 6.5 MB; about 20 characters a number
_NUMBERS_AT_ONCE = 100_000


class RemoteError(AbgateError):
    """A running server refused, failed, or answered something that is no answer."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server's kind, its HTTP address `host:port`, and the name it serves the model by."""

    kind: Kind
    address: str
    model: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.address}"


def signature(server: Server, model: str, signature_name: str) -> Signature:
    """Import a signature from TensorFlow Serving's metadata; raises RemoteError with the server's words or what is missing."""
    body = _request(server, "GET", f"/v1/models/{quote(server.model, safe='')}/metadata", None)
    try:
        return served_signature.from_metadata(_json(server, body), model, signature_name)
    except ValueError as error:
        raise RemoteError(f"{server}: model {server.model!r} {error}") from error


def predict(
    server: Server,
    spec: Signature,
    inputs: Mapping[str, NDArray[Any]],
    progress: Callable[[str, float], None],
) -> dict[str, NDArray[Any]]:
    """Send every input row and give one array per output; raises RemoteError, naming the rows that were sent."""
    rows = len(inputs[spec.inputs[0].name])
    numbers = sum(int(np.prod(inputs[tensor.name].shape[1:])) for tensor in spec.inputs)
    step = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // max(1, numbers)))
    parts: dict[str, list[NDArray[Any]]] = {tensor.name: [] for tensor in spec.outputs}
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        try:
            reply = _json(server, _send(server, spec, {name: array[start:stop] for name, array in inputs.items()}))
            for name, array in _decode(spec, reply, stop - start).items():
                parts[name].append(array)
        except (RemoteError, ValueError) as error:
            raise RemoteError(f"{server}, model {server.model!r}, inputs {start} to {stop - 1}: {error}") from error
        progress(f"{server.kind}: {stop} of {rows} inputs", stop / rows)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _send(server: Server, spec: Signature, rows: Mapping[str, NDArray[Any]]) -> bytes:
    columns = [[_plain(row) for row in rows[tensor.name]] for tensor in spec.inputs]
    if len(spec.inputs) == 1:
        instances: list[Any] = columns[0]
    else:
        names = [tensor.name for tensor in spec.inputs]
        instances = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    body = json.dumps({"signature_name": spec.signature_name, "instances": instances}).encode()
    name = quote(server.model, safe="")
    path = f"/v1/models/{name}:predict" if server.kind == TENSORFLOW else f"/predictions/{name}"
    return _request(server, "POST", path, body)


def _plain(value: Any) -> Any:
    """A row as JSON values; bytes as TensorFlow Serving writes them."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value] if value.dtype.kind == "O" else value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _decode(spec: Signature, reply: Any, rows: int) -> dict[str, NDArray[Any]]:
    """The outputs of {"predictions": [...]}, or of the bare list many a TorchServe handler answers with."""
    predictions = reply.get("predictions") if isinstance(reply, dict) else reply
    if not isinstance(predictions, list) or len(predictions) != rows:
        raise ValueError(f"the answer holds no list of {rows} predictions: {json.dumps(reply)[:200]}")
    if len(spec.outputs) == 1 and not (
        predictions and isinstance(predictions[0], dict) and "b64" not in predictions[0]
    ):
        return {spec.outputs[0].name: _tensor(spec.outputs[0], predictions)}
    outputs: dict[str, NDArray[Any]] = {}
    for tensor in spec.outputs:
        missing = [i for i, row in enumerate(predictions) if not isinstance(row, dict) or tensor.name not in row]
        if missing:
            raise ValueError(f"output {tensor.name!r} is missing from prediction {missing[0]}")
        outputs[tensor.name] = _tensor(tensor, [row[tensor.name] for row in predictions])
    return outputs


def _tensor(spec: TensorSpec, values: list[Any]) -> NDArray[Any]:
    if spec.datatype == "BYTES":
        return np.array(_texts(values), dtype=np.object_)
    try:
        natural = np.asarray(values)
        if natural.dtype.kind == "f" and np.dtype(DTYPES[spec.datatype]).kind != "f":
            raise ValueError("it has fractions")
        return natural.astype(DTYPES[spec.datatype])
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise ValueError(f"output {spec.name!r} is not a tensor of {spec.datatype}: {error}") from error


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else str(value).encode()


def _json(server: Server, body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise RemoteError(f"{server} answered something that is not JSON: {body[:200]!r}") from error


def _request(server: Server, method: str, path: str, body: bytes | None) -> bytes:
    """One request on a connection of its own: TorchServe closes after errors, and speed is not measured here."""
    headers = {"content-type": "application/json", "x-abgate-format": "tfs-json"} if body is not None else {}
    connection = http.client.HTTPConnection(server.address, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise RemoteError(f"{server} cannot be reached: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise RemoteError(
            f"{server} answered {response.status} to {method} {path}: {answer[:500].decode(errors='replace')}"
        )
    return answer
