"""TF Serving's configuration files as text, from a BackendSpec.

Lives here: protobuf text format, written by hand because no protobuf is needed to write six fields. Must not live here:
files, processes. Both servers read the same text.
"""

from __future__ import annotations

import json
from pathlib import Path

from backends.spec import Batching, ServedModel

METRICS_PATH = "/monitoring/prometheus/metrics"


def model_config_list(models: tuple[ServedModel, ...]) -> str:
    """Return a ModelServerConfig; a model with a version serves exactly that one, else the newest."""
    entries = []
    for model in models:
        policy = ""
        if model.version is not None:
            policy = f"\n    model_version_policy {{ specific {{ versions: {int(model.version)} }} }}"
        entries.append(
            "  config {\n"
            f"    name: {_text(model.name)}\n"
            f"    base_path: {_text(str(Path(model.path).resolve()))}\n"
            f'    model_platform: "tensorflow"{policy}\n'
            "  }\n"
        )
    return "model_config_list {\n" + "".join(entries) + "}\n"


def batching_parameters(
    batching: Batching, workers: int, job_queue: int, max_rows: int, allowed: tuple[int, ...] = ()
) -> str:
    """Return BatchingParameters: as many batch threads as the other server has workers, as many queued requests.

    TF Serving counts rows and refuses a request of more rows than max_batch_size, which TorchServe, counting requests, takes:
    so a request may have max_rows and is split into executions of the batching's size, and the queue, counted in rows too, has
    room for the largest request beside job_queue small ones.

    Without `allowed` there are no allowed_batch_sizes: a batch runs with the rows it has, as on TorchServe, and nothing is
    padded. A model that is compiled for each size names its sizes, and batches are padded to them.
    """
    size = batching.max_batch_size
    values = {
        "max_batch_size": max(size, max_rows),
        "max_execution_batch_size": size,
        "batch_timeout_micros": round(batching.max_wait_ms * 1000),
        "num_batch_threads": workers,
        "max_enqueued_batches": max(1, -(-(job_queue + max_rows) // size)),
    }
    lines = [f"{name} {{ value: {value} }}\n" for name, value in values.items()]
    lines += [f"allowed_batch_sizes: {size}\n" for size in allowed]
    return "".join([*lines, "enable_large_batch_splitting { value: true }\n"])


def monitoring_config() -> str:
    """Return a MonitoringConfig that serves Prometheus metrics on the REST port."""
    return f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'


def _text(value: str) -> str:
    return json.dumps(value)
