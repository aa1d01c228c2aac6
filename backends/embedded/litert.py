"""One LiteRT file (model.tflite) with the face of a GraphSession, so that it is served, batched and described like a SavedModel.

Lives here: the interpreters, and the graph whose one operator calls them. Must not live here: batching, requests. The real
TensorFlow Serving loads such a file only with --prefer_tflite_model. An interpreter runs one call at a time: there are as many
as calls may run together (inter_op), each with the threads of one operator (intra_op).
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.embedded.errors import Code, ServingError, invalid
from backends.embedded.session import Parallelism, RawCall, make_callable, session_config
from backends.embedded.signature import DEFAULT_SIGNATURE

LITERT_FILE = "model.tflite"


def is_litert(directory: str) -> bool:
    """Whether a version folder holds a LiteRT file and no SavedModel."""
    folder = Path(directory)
    return (folder / LITERT_FILE).is_file() and not (folder / "saved_model.pb").exists()


class LiteRtSession:
    """A loaded LiteRT file: graph, session and signature as GraphSession has them."""

    def __init__(self, directory: str, parallelism: Parallelism) -> None:
        import tensorflow as tf

        self._pool = Interpreters(str(Path(directory) / LITERT_FILE), parallelism)
        self.graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=self.graph, config=session_config(parallelism))
        inputs, outputs = self._pool.inputs, self._pool.outputs
        with self.graph.as_default():
            fed = [tf.compat.v1.placeholder(item["dtype"], _free(item), name=name) for name, item in inputs.items()]
            kinds = [item["dtype"] for item in outputs.values()]
            found = tf.numpy_function(lambda *arrays: self._pool.run(arrays), fed, kinds, stateful=False)
            for tensor, item in zip(found, outputs.values(), strict=True):
                tensor.set_shape(_free(item))
        self._feeds, self._fetches = [tensor.name for tensor in fed], [tensor.name for tensor in found]
        self.meta_graph = _described(dict(zip(inputs, fed, strict=True)), dict(zip(outputs, found, strict=True)))

    def callable(self, feeds: Sequence[str], fetches: Sequence[str]) -> RawCall:
        """Return f(*arrays in feed order) -> arrays in fetch order; the whole signature needs no graph around it."""
        if set(feeds) != set(self._feeds) or set(fetches) != set(self._fetches):
            return make_callable(self.session, feeds, fetches)
        order = [list(feeds).index(name) for name in self._feeds]
        wanted = [self._fetches.index(name) for name in fetches]

        def call(*arrays: Any) -> list[np.ndarray]:
            try:
                answers = self._pool.run([arrays[index] for index in order])
            except ValueError as error:
                raise invalid(str(error)) from None
            except RuntimeError as error:
                raise ServingError(Code.INTERNAL, f"LiteRT: {error}") from None
            return [answers[index] for index in wanted]

        return call


class Interpreters:
    """As many interpreters of one file as calls may run together; `run` waits for a free one."""

    def __init__(self, path: str, parallelism: Parallelism) -> None:
        from ai_edge_litert.interpreter import Interpreter

        free: queue.LifoQueue[Any] = queue.LifoQueue()  # the last used one is warm, and has its shapes
        for _ in range(max(1, parallelism.inter_op)):
            interpreter = Interpreter(model_path=path, num_threads=max(1, parallelism.intra_op))
            names = list(interpreter.get_signature_list())
            if not names:
                raise ValueError(f"{path}: has no signature; convert it from a SavedModel's signature")
            name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0]
            free.put((interpreter, interpreter.get_signature_runner(name)))
        self._free = free
        runner = free.queue[-1][1]
        self.inputs = {name: details(item) for name, item in sorted(runner.get_input_details().items())}
        self.outputs = {name: details(item) for name, item in sorted(runner.get_output_details().items())}

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Inputs and outputs by name, sorted. Raises ValueError for a shape it cannot take, RuntimeError for LiteRT's own."""
        for array, (name, item) in zip(arrays, self.inputs.items(), strict=True):
            shape = item["shape"]
            fits = len(shape) == array.ndim and all(
                size in (-1, given) for size, given in zip(shape, array.shape, strict=True)
            )
            if not fits or 0 in array.shape:
                raise ValueError(
                    f"input {name} has shape {list(array.shape)}, LiteRT takes {list(shape)}, none of them 0"
                )
        held = self._free.get()
        try:
            answers = held[1](**dict(zip(self.inputs, arrays, strict=True)))
            return [np.array(answers[name]) for name in self.outputs]
        finally:
            self._free.put(held)


def details(item: Any) -> dict[str, Any]:
    """Type and known dimensions (-1 where open) of one of a signature's tensors."""
    known = item.get("shape_signature")
    shape = known if known is not None and len(known) else item["shape"]
    return {"dtype": np.dtype(item["dtype"]), "shape": tuple(int(size) for size in shape)}


def _free(item: dict[str, Any]) -> list[int | None]:
    return [None if size < 0 else size for size in item["shape"]]


def _described(inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    """The MetaGraphDef that a SavedModel would have for them."""
    from tensorflow.core.protobuf import meta_graph_pb2

    meta = meta_graph_pb2.MetaGraphDef()
    definition = meta.signature_def[DEFAULT_SIGNATURE]
    definition.method_name = "tensorflow/serving/predict"
    for side, tensors in ((definition.inputs, inputs), (definition.outputs, outputs)):
        for name, tensor in tensors.items():
            side[name].name = tensor.name
            side[name].dtype = tensor.dtype.as_datatype_enum
            side[name].tensor_shape.CopyFrom(tensor.shape.as_proto())
    return meta
