"""Adds a batched twin of a signature to a loaded graph: TensorFlow's in-graph batcher around the signature's own operators.

Lives here: graph surgery only. Must not live here: batching parameters' text format, metrics.
The operators between the signature's inputs and outputs are copied into the batch function's body; variables and other
resources stay where they are and are captured, so nothing is loaded twice. All batch functions of a process whose
shared_name is equal share ONE queue and then mix models' requests: the name scope is the guard, and it must be unique per
model, version and signature. The body adds one column per request row, from which the real batch is known:
    [1 if the row belongs to the first request of the batch, rows run (with padding), rows sent, seconds queued]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.embedded.signature import Signature


@dataclass(frozen=True)
class BatchingParameters:
    """What TF Serving's batching_parameters_file sets; the defaults are those of its BasicBatchScheduler."""

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 0
    allowed_batch_sizes: tuple[int, ...] = ()
    thread_pool_name: str = "model_server_batch_threads"
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0


@dataclass(frozen=True)
class BatchedGraph:
    """Tensor names of a batched twin: feed inputs in alias order and `base`, fetch outputs in alias order and `facts`."""

    inputs: tuple[str, ...]
    base: str
    outputs: tuple[str, ...]
    facts: str


def add_batched(graph: Any, signature: Signature, scope: str, parameters: BatchingParameters) -> BatchedGraph:
    """Build the twin of `signature` in `graph`; `base` takes a number unique among requests, apart by more than a batch.

    Raises ValueError when the graph cannot be cut (an output that depends on no input).
    """
    import tensorflow as tf

    inputs = [graph.get_tensor_by_name(info.tensor) for info in signature.inputs.values()]
    outputs = [graph.get_tensor_by_name(info.tensor) for info in signature.outputs.values()]
    body_graph, captured = _cut(graph, inputs, outputs)

    def body(*arguments: Any) -> list[Any]:
        function_graph = tf.compat.v1.get_default_graph()
        bound = {tensor.name: argument for tensor, argument in zip(inputs, arguments, strict=False)}
        bound |= {name: function_graph.capture(tensor) for name, tensor in captured.items()}
        results = tf.graph_util.import_graph_def(
            body_graph, input_map=bound, return_elements=[tensor.name for tensor in outputs], name=""
        )
        return [*results, _facts(*arguments[-2:])]

    with graph.as_default(), tf.name_scope(re.sub(r"[^A-Za-z0-9_.\\/-]", "_", scope)):
        fed = [tf.compat.v1.placeholder(tensor.dtype, tensor.shape) for tensor in inputs]
        base = tf.compat.v1.placeholder(tf.int64, [])
        rows = tf.shape(fed[0])[0]
        row_ids = base + tf.range(tf.cast(rows, tf.int64))
        entered = tf.fill([rows], tf.timestamp())
        split = parameters.enable_large_batch_splitting
        batched = tf.nondifferentiable_batch_function(
            parameters.num_batch_threads,
            parameters.max_batch_size,
            parameters.batch_timeout_micros,
            allowed_batch_sizes=list(parameters.allowed_batch_sizes) or None,
            max_enqueued_batches=parameters.max_enqueued_batches,
            autograph=False,
            enable_large_batch_splitting=split,
        )(body)
        *results, facts = batched(*fed, row_ids, entered)
    return BatchedGraph(
        tuple(tensor.name for tensor in fed), base.name, tuple(tensor.name for tensor in results), facts.name
    )


def _facts(row_ids: Any, entered: Any) -> Any:
    import tensorflow as tf

    padded = tf.shape(row_ids)
    real = tf.size(tf.unique(row_ids)[0])  # padding repeats a row, and with it the row's number
    # A request's rows are numbered base, base + 1, ...: the batch is counted by the one row that opens it.
    opens = tf.equal(row_ids, row_ids[:1])
    columns = [
        tf.cast(opens, tf.float64),
        tf.cast(tf.fill(padded, padded[0]), tf.float64),
        tf.cast(tf.fill(padded, real), tf.float64),
        tf.timestamp() - entered,
    ]
    return tf.stack(columns, axis=1)


def _cut(graph: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Return the GraphDef between inputs and outputs, and the outer tensors it reads, by name."""
    fed = {tensor.op for tensor in inputs}
    reached = _reach(outputs, fed)
    dependent = _dependent(reached, fed)
    outside = {op for op in reached if op not in dependent and _stays_outside(op)}
    inside = _reach(outputs, fed | outside) - fed - outside
    if not all(tensor.op in dependent for tensor in outputs):
        raise ValueError("an output depends on no input, so it has no rows to batch")
    whole = graph.as_graph_def()
    names = {op.name for op in inside}
    body = type(whole)(versions=whole.versions, library=whole.library)
    for op in graph.get_operations():
        if op in inside:
            node = body.node.add()
            node.CopyFrom(op.node_def)
            node.attr.pop("_class", None)  # colocation with operators that stay outside
            controls = [name for name in node.input if name.startswith("^") and name[1:] in names]
            data = [name for name in node.input if not name.startswith("^")]
            del node.input[:]
            node.input.extend(data + controls)
    captured = {}
    for op in inside:
        for tensor in op.inputs:
            if tensor.op in outside:
                captured[tensor.name] = _value_of(graph, tensor)
    return body, captured


def _reach(outputs: Sequence[Any], stop: set[Any]) -> set[Any]:
    found: set[Any] = set()
    pending = [tensor.op for tensor in outputs]
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            if op not in stop:
                pending += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


def _dependent(reached: set[Any], fed: set[Any]) -> set[Any]:
    dependent = set(fed)
    pending = list(fed)
    while pending:
        for tensor in pending.pop().outputs:
            new = [op for op in tensor.consumers() if op in reached and op not in dependent]
            dependent.update(new)
            pending += new
    return dependent


def _stays_outside(op: Any) -> bool:
    """Variables, tables and whatever else keeps state: copied into the body they would be other objects."""
    handles = any(tensor.dtype.name in {"resource", "variant"} or tensor.dtype._is_ref_dtype for tensor in op.outputs)
    stateful = bool(op.op_def is not None and op.op_def.is_stateful)
    return handles or (stateful and op.type != "ReadVariableOp")


def _value_of(graph: Any, tensor: Any) -> Any:
    import tensorflow as tf

    if not tensor.dtype._is_ref_dtype:
        return tensor
    with graph.as_default():
        return tf.identity(tensor)  # a function takes the value of an old reference variable, not the reference
