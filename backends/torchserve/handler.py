"""The handler TorchServe runs: one model in any form of handler_models, the formats of handler_wire, one forward for a whole batch.

This file, handler_wire.py and handler_models.py are copied into a model folder and imported by TorchServe's worker: the standard
library, numpy and the runtime that the model's form needs. It must hold exactly one class, must return as many answers as it got
requests, and must never let one request's fault reach its batch mates or the worker. What it trusts is signature.json.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from backends.torchserve import handler_models as models
    from backends.torchserve import handler_wire as wire
else:
    try:  # in a model folder, which TorchServe puts on the path
        import handler_models as models
        import handler_wire as wire
    except ImportError:  # in the package
        from backends.torchserve import handler_models as models
        from backends.torchserve import handler_wire as wire

SENT_KEY = "x-abgate-sent-ns"
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)
FLUSH_SECONDS = 0.25


class Handler:
    """What TorchServe calls: `initialize` once in a worker, then `handle` with one batch at a time."""

    def initialize(self, ctx: Any) -> None:
        """Load the model and signature.json with the threads it may use, run it once per batch size it will see."""
        folder = ctx.system_properties["model_dir"]
        config = (ctx.model_yaml_config or {}).get("handler") or {}
        model = ctx.manifest["model"]
        self.name, self.version = ctx.model_name, str(model.get("modelVersion", "1.0"))
        self.signature = wire.load_signature(os.path.join(folder, "signature.json"))
        self.model = models.load(folder, model.get("serializedFile", "model.pt"), config, self.signature)
        self._tally: dict[str, int] = {}
        self._tally_lock, self._tallied = threading.Lock(), threading.Event()
        self._counters = self._find_counters(ctx)
        if self._counters:
            threading.Thread(target=self._flush_forever, name="abgate-metrics", daemon=True).start()
        self._warm_up(int(ctx.system_properties.get("batch_size") or 1))

    def handle(self, data: list[dict[str, Any]], ctx: Any) -> list[bytes]:
        """Answer one batch: a reply for each request, in order."""
        started = time.time_ns()
        jobs = [self._read(index, row, ctx, started) for index, row in enumerate(data)]
        good = [job for job in jobs if job.error is None]
        groups: dict[Any, list[SimpleNamespace]] = {}
        for job in good:
            same = tuple(array.shape[1:] for array in job.arrays) if self.signature.batched else job.index
            groups.setdefault(same, []).append(job)
        rows = sum(job.rows for job in good)
        for group in groups.values():
            self._forward(group)
        self._count(len(data), rows, [job.queue_ns for job in jobs if job.queue_ns is not None])
        return [self._reply(job, ctx, len(data), rows) for job in jobs]

    def _read(self, index: int, row: dict[str, Any], ctx: Any, now: int) -> SimpleNamespace:
        job = SimpleNamespace(
            index=index, bare=True, error=None, status=200, rows=0, head={}, style="row", queue_ns=None, arrays=[]
        )
        job.format = next((name for name in wire.FORMATS if name in row), "")
        job.grpc = bool(job.format)
        try:
            body = row[job.format] if job.grpc else row["body"] if "body" in row else row.get("data")
            sent = row.get(SENT_KEY) if job.grpc else request_header(ctx, index, SENT_KEY)
            if sent:
                text = sent if isinstance(sent, str) else bytes(sent).decode()
                job.queue_ns = max(0, now - int(text))
            job.format = job.format or request_header(ctx, index, "x-abgate-format") or ""
            self._decode(job, body)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError) as fault:
            job.error, job.status = str(fault) or repr(fault), 400
        return job

    def _decode(self, job: SimpleNamespace, body: Any) -> None:
        job.bare = not job.format
        if job.format not in (*wire.FORMATS, ""):
            raise ValueError(f"x-abgate-format {job.format!r} is none of {', '.join(wire.FORMATS)}")
        if body is None:
            raise ValueError(
                "no body: send JSON with content-type application/json, or bytes as application/octet-stream"
            )
        raw = None
        if job.format == "oip-binary":
            body, raw = wire.split_binary(body)
        elif isinstance(body, (bytes, bytearray, memoryview)):
            body = wire.parse_json(body)
        job.format = job.format or wire.guess_format(body)
        if job.format == "tfs-json":
            job.style, job.arrays = wire.read_tfs(body, self.signature)
        else:
            job.arrays = wire.read_oip(body, raw, self.signature)
            job.wanted = wire.wanted_outputs(body, self.signature)
            job.head = {"id": str(body.get("id") or "")}
        sizes = {array.shape[0] for array in job.arrays} if self.signature.batched else {1}
        if len(sizes) != 1:
            raise ValueError(f"inputs differ in their number of rows: {sorted(sizes)}")
        job.rows = sizes.pop()

    def _forward(self, group: list[SimpleNamespace]) -> None:
        """Run one forward for requests of one shape; when it fails, each alone, so that only the guilty one hears of it."""
        try:
            stacks = zip(*(job.arrays for job in group), strict=True)
            outputs = self._run([np.concatenate(arrays) if len(group) > 1 else arrays[0] for arrays in stacks])
            total = sum(job.rows for job in group)
            for (name, _, _), output in zip(self.signature.outputs, outputs, strict=True):
                if self.signature.batched and output.shape[:1] != (total,):
                    raise RuntimeError(f"output {name!r} has shape {list(output.shape)} for {total} rows")
        except Exception as fault:  # a model may raise anything; the worker must outlive it
            if len(group) > 1:
                for job in group:
                    self._forward([job])
                return
            text = (str(fault).strip() or repr(fault)).splitlines()[-1]
            group[0].error, group[0].status = f"the model failed: {text}", 500
            print(f"abgate handler: {self.name}: the model failed: {text}", file=sys.stderr, flush=True)
            return
        start = 0
        for job in group:
            end = start + job.rows
            job.outputs = [output[start:end] for output in outputs] if self.signature.batched else outputs
            start = end

    def _run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        outputs = self.model.run(arrays)
        if len(outputs) != len(self.signature.outputs):
            raise RuntimeError(f"{len(outputs)} outputs, the signature has {len(self.signature.outputs)}")
        for (name, datatype, _), array in zip(self.signature.outputs, outputs, strict=True):
            if array.dtype != wire.NUMPY_TYPES[datatype]:
                raise RuntimeError(f"output {name!r} is {array.dtype}, the signature says {datatype}")
        return outputs

    def _reply(self, job: SimpleNamespace, ctx: Any, batch_size: int, batch_rows: int) -> bytes:
        payload, kind = b"", "application/json"
        if job.error is None:
            try:
                payload = self._encode(job)
                kind = "application/octet-stream" if job.format == "oip-binary" else kind
            except Exception as fault:  # same rule: no answer may take its mates down
                job.error, job.status = f"the answer cannot be written: {fault}", 500
        told = {"batch_size": batch_size, "batch_rows": batch_rows}
        if job.queue_ns is not None:
            told["queue_ns"] = job.queue_ns
        if job.grpc:
            head = {"status": job.status, **told} | ({} if job.error is None else {"error": job.error})
            text = wire.dump_json(head, [])
            text += b" " * (-len(text) % 8)
            return b"".join((b"ABG1", struct.pack("<I", len(text)), text, payload))
        if job.error is not None:
            # TorchServe's own gRPC OIP front end kills the worker over an answer without these four keys
            bare = {"id": "", "model_name": self.name, "model_version": self.version, "outputs": []}
            payload = wire.dump_json({"error": job.error} | (bare if job.bare else {}), [])
            ctx.set_response_status(
                job.status, "Bad Request" if job.status == 400 else "Internal Server Error", job.index
            )
        ctx.set_response_content_type(job.index, kind)
        for key, value in told.items():
            ctx.set_response_header(job.index, "x-abgate-" + key.replace("_", "-"), str(value))
        return payload

    def _encode(self, job: SimpleNamespace) -> bytes:
        specs = self.signature.outputs
        if job.format == "tfs-json":
            return wire.write_tfs(job.style, [name for name, _, _ in specs], job.outputs)
        head = job.head | {"model_name": self.name, "model_version": self.version}
        outputs = [job.outputs[position] for position in job.wanted]
        return wire.write_oip(head, [specs[position] for position in job.wanted], outputs, job.format == "oip-binary")

    def _warm_up(self, batch_size: int) -> None:
        """Run the model, so that it specialises or is compiled before the first client and not on it."""
        for rows in sorted({1, 2, batch_size}) * 2:
            arrays = self._example(rows)
            try:
                self.model.warm(arrays)
            except Exception as fault:  # zeros may be no legal input: the model still serves
                if self.model.must_warm:
                    raise
                print(
                    f"abgate handler: {self.name}: warm-up with {rows} rows failed: {fault}",
                    file=sys.stderr,
                    flush=True,
                )
                return

    def _example(self, rows: int) -> list[np.ndarray]:
        """That many rows of the model's own example, of zeros where it brings none."""
        if self.model.example is not None:
            return [np.repeat(array[:1], rows, axis=0) for array in self.model.example]
        return [
            np.full(
                [rows if axis == 0 and self.signature.batched else max(size, 1) for axis, size in enumerate(shape)],
                b"" if datatype == "BYTES" else 0,
                wire.NUMPY_TYPES[datatype],
            )
            for _, datatype, shape in self.signature.inputs
        ]

    def _find_counters(self, ctx: Any) -> dict[str, Any]:
        """The counters that our metrics.yaml declares; none when the server runs with another one."""
        names = ["bucket", "sum", "count", "rows_sum"]
        keys = {f"abgate_batch_{'size_' if name != 'rows_sum' else ''}{name}" for name in names}
        found = {}
        for key in keys | {"abgate_queue_ns_sum", "abgate_queue_ns_count"}:
            try:
                found[key] = ctx.metrics.get_metric(key)
            except Exception:  # the class of this error lives inside TorchServe
                return {}
        return found

    def _count(self, size: int, rows: int, queues: list[int]) -> None:
        """Add a batch to the tally; a thread hands it on, because every update is a line of text that java must parse."""
        with self._tally_lock:
            tally = self._tally
            bound = next((str(bound) for bound in BATCH_BOUNDS if size <= bound), "+Inf")
            for key, amount in (
                (bound, 1),
                ("abgate_batch_size_sum", size),
                ("abgate_batch_size_count", 1),
                ("abgate_batch_rows_sum", rows),
                ("abgate_queue_ns_sum", sum(queues)),
                ("abgate_queue_ns_count", len(queues)),
            ):
                tally[key] = tally.get(key, 0) + amount
        self._tallied.set()

    def _flush_forever(self) -> None:
        while True:
            self._tallied.wait()
            time.sleep(FLUSH_SECONDS)
            self._tallied.clear()
            self._flush()

    def _flush(self) -> None:
        """Report what was tallied since the last time; buckets are cumulative, like a Prometheus histogram's."""
        with self._tally_lock:
            tally, self._tally = self._tally, {}
        labels, below = [self.name, self.version], 0
        for bound in (*map(str, BATCH_BOUNDS), "+Inf"):
            below += tally.pop(bound, 0)
            if below:
                self._counters["abgate_batch_size_bucket"].add_or_update(below, [*labels, bound])
        for key, amount in tally.items():
            self._counters[key].add_or_update(amount, labels)


def request_header(ctx: Any, index: int, key: str) -> str | None:
    """A request's header; TorchServe keeps the client's letter case, `key` is lower case."""
    value = ctx.get_request_header(index, key)
    if value is None:
        named = (found for name, found in ctx.get_all_request_header(index).items() if name.lower() == key)
        value = next(named, None)
    return value if isinstance(value, str) else None
