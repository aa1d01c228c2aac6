"""One loaded version of one model: named arrays in, named arrays out.

Lives here: the choice between the plain and the batched callable, what is measured around a call. Must not live here:
JSON, protobuf requests, the file system's versions.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.embedded.batch_graph import BatchingParameters, add_batched
from backends.embedded.errors import invalid
from backends.embedded.litert import LiteRtSession, is_litert
from backends.embedded.metrics import ServingMetrics
from backends.embedded.session import GraphSession, Parallelism, RawCall
from backends.embedded.signature import DEFAULT_SIGNATURE, Signature, signature_from_proto

logger = logging.getLogger(__name__)

_ROW_NUMBERS = 2**32  # more than a request's rows

Run = Callable[[list[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class LoadOptions:
    """What every model of the process is loaded with."""

    tags: tuple[str, ...] = ("serve",)
    parallelism: Parallelism = field(default_factory=Parallelism)
    batching: BatchingParameters | None = None


class Servable:
    """A version in memory; its session ends with the last reference, so a request in flight outlives an unload."""

    def __init__(self, name: str, version: int, directory: str, options: LoadOptions, metrics: ServingMetrics) -> None:
        self.name = name
        self.version = version
        self.directory = directory
        self._graph: GraphSession | LiteRtSession = (
            LiteRtSession(directory, options.parallelism)
            if is_litert(directory)
            else GraphSession(directory, options.tags, options.parallelism)
        )
        self._metrics = metrics
        self.signature_defs: Mapping[str, Any] = self._graph.meta_graph.signature_def
        self.signatures: dict[str, Signature] = {}
        self._runs: dict[str, Run] = {}
        for key, definition in self.signature_defs.items():
            signature = signature_from_proto(key, definition)
            if signature is not None and not key.startswith("__"):
                self.signatures[key] = signature
                self._runs[key] = self._build(signature, options.batching)

    def signature(self, key: str) -> Signature | None:
        """Return a signature by key; "" means the default one."""
        return self.signatures.get(key or DEFAULT_SIGNATURE)

    def run(self, signature: Signature, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a signature on arrays of exactly its input names; raises ServingError (wrong type, or TensorFlow's own)."""
        fed = []
        for alias, info in signature.inputs.items():
            array = tensors[alias]
            if array.dtype != info.dtype.numpy:
                raise invalid(
                    f"Type mismatch for input {alias}: actual {array.dtype.name} vs. expect {info.dtype.name}"
                )
            fed.append(array)
        start = time.perf_counter_ns()
        answers = self._runs[signature.name](fed)
        self._metrics.runtime.record((time.perf_counter_ns() - start) / 1000, self.name, "Predict", "TF1")
        return dict(zip(signature.outputs, answers, strict=True))

    def _build(self, signature: Signature, batching: BatchingParameters | None) -> Run:
        if batching is None:
            call = self._graph.callable(
                [info.tensor for info in signature.inputs.values()],
                [info.tensor for info in signature.outputs.values()],
            )
            return lambda fed: call(*fed)
        scope = f"{self.name}_v{self.version}_{signature.name}"
        try:
            twin = add_batched(self._graph.graph, signature, scope, batching)
        except ValueError as error:
            logger.warning("%s: not batched: %s", scope, error)
            return self._build(signature, None)
        call = self._graph.callable([*twin.inputs, twin.base], [*twin.outputs, twin.facts])
        return self._batched(call, batching.thread_pool_name)

    def _batched(self, call: RawCall, pool_name: str) -> Run:
        bases = itertools.count(0, _ROW_NUMBERS)
        metrics = self._metrics

        def run(fed: list[np.ndarray]) -> list[np.ndarray]:
            *answers, facts = call(*fed, np.int64(next(bases)))
            if len(facts):  # an empty request never enters a batch
                metrics.request_rows.record(len(facts))
                metrics.queuing.record(float(facts[0, 3]) * 1e6, pool_name)
                for _, executed, sent, _ in facts[facts[:, 0] == 1.0].tolist():
                    metrics.runs.add()
                    metrics.batch_rows.record(executed)
                    metrics.padding_rows.record(executed - sent, str(int(executed)))
            return answers

        return run
