"""First calls before a version becomes AVAILABLE: the first call of a graph costs 20 to 100 times the later ones.

Lives here: TF Serving's recorded warm-up requests, else a synthetic one of the default signature's shape. Must not live
here: loading. A recorded request that fails refuses the version (as TF Serving does); a synthetic one only logs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from backends.embedded.errors import ServingError, invalid
from backends.embedded.servable import Servable
from backends.embedded.signature import Signature, TensorInfo
from backends.embedded.tensor_proto import decode_tensor

WARMUP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
# beside the version folders of a model that XLA compiles for each batch size
SIZES_FILE = "batch_sizes.json"
MAX_RECORDS = 1000  # saved_model_warmup_util.h

logger = logging.getLogger(__name__)


def warm_up(servable: Servable, batch_sizes: tuple[int, ...] = (1,)) -> int:
    """Run the version's warm-up and return the number of calls made; raises ServingError when a recorded request fails."""
    recorded = Path(servable.directory) / WARMUP_FILE
    if recorded.is_file():
        compiled = (Path(servable.directory).parent / SIZES_FILE).is_file()
        return _replay(servable, recorded) + (_other_sizes(servable, recorded, batch_sizes) if compiled else 0)
    return _synthesize(servable, batch_sizes)


def _replay(servable: Servable, path: Path) -> int:
    calls = 0
    for signature, tensors in _requests(servable, path):
        servable.run(signature, tensors)
        calls += 1
    return calls


def _other_sizes(servable: Servable, path: Path, batch_sizes: tuple[int, ...]) -> int:
    """Run a recorded row in every batch size that the records leave out: a function that XLA compiles is compiled for each."""
    missing, row = set(batch_sizes) - {1}, None
    for signature, tensors in _requests(servable, path):
        if all(info.shape and info.shape[0] == -1 for info in signature.inputs.values()):
            missing -= {len(next(iter(tensors.values())))}
            row = signature, {alias: array[:1] for alias, array in tensors.items()}
    if row is None:
        return 0
    signature, first = row
    for rows in sorted(missing):
        servable.run(signature, {alias: np.repeat(array, rows, axis=0) for alias, array in first.items()})
    return len(missing)


def _requests(servable: Servable, path: Path) -> Iterator[tuple[Signature, dict[str, np.ndarray]]]:
    """The recorded requests that fit a signature."""
    from tensorflow_serving.apis import prediction_log_pb2

    for record in _records(path):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        if log.WhichOneof("log_type") != "predict_log":
            logger.warning("%s: a %s record is skipped: only Predict is served", path, log.WhichOneof("log_type"))
            continue
        request = log.predict_log.request
        signature = servable.signature(request.model_spec.signature_name)
        if signature is None or set(signature.inputs) != set(request.inputs):
            logger.warning(
                "%s: a record is skipped: it does not fit signature %r", path, request.model_spec.signature_name
            )
            continue
        yield signature, {alias: decode_tensor(alias, proto) for alias, proto in request.inputs.items()}


def _records(path: Path) -> Iterator[bytes]:
    import tensorflow as tf

    for count, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
        if count >= MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
        yield record


def _synthesize(servable: Servable, batch_sizes: tuple[int, ...]) -> int:
    signature = servable.signature("")
    if signature is None:
        return 0
    calls = 0
    for rows in batch_sizes:
        tensors = _zeros(signature, rows)
        if tensors is None:
            return calls
        try:
            servable.run(signature, tensors)
        except ServingError as error:
            logger.info("%s version %d: no synthetic warm-up: %s", servable.name, servable.version, error)
            return calls
        calls += 1
    return calls


def _zeros(signature: Signature, rows: int) -> dict[str, np.ndarray] | None:
    tensors = {}
    for alias, info in signature.inputs.items():
        array = _zero(info, rows)
        if array is None:
            return None
        tensors[alias] = array
    return tensors


def _zero(info: TensorInfo, rows: int) -> np.ndarray | None:
    """Zeros with `rows` rows and 1 for every other unknown dimension; None where zeros mean nothing (text, unknown rank)."""
    if info.shape is None or info.dtype.json == "string":
        return None
    shape = [1 if size < 0 else size for size in info.shape]
    if info.shape and info.shape[0] < 0:
        shape[0] = rows
    return np.zeros(shape, dtype=info.dtype.numpy)
