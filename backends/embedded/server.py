"""Composition root of the stand-in: Flags -> listening process -> drained exit.

Lives here: what is built from what, signals, the order of start and stop. Must not live here: any rule about requests.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from typing import Any

from backends.embedded.batch_graph import BatchingParameters
from backends.embedded.catalog import Catalog, poll
from backends.embedded.config_files import (
    ConfigError,
    ModelConfig,
    read_batching_parameters,
    read_metrics_path,
    read_model_configs,
)
from backends.embedded.flags import Flags
from backends.embedded.grpc_server import create_server
from backends.embedded.http_server import HttpServer
from backends.embedded.metrics import ServingMetrics
from backends.embedded.rest import RestApi
from backends.embedded.servable import LoadOptions, Servable
from backends.embedded.service import Service
from backends.embedded.session import Parallelism, check_runtime
from backends.embedded.warmup import warm_up

logger = logging.getLogger(__name__)


def serve(flags: Flags) -> int:
    """Serve until SIGTERM or SIGINT; return 0, or 1 when requests were cut. Raises ConfigError, OSError, RuntimeError."""
    rest = HttpServer((flags.host, max(flags.rest_api_port, 0))) if flags.rest_api_port else None
    if flags.port > 0:  # gRPC can bind only when TensorFlow is loaded, seconds later: a used port is refused now
        family = socket.AF_INET6 if ":" in flags.host else socket.AF_INET
        socket.create_server((flags.host, flags.port), family=family).close()
    batching = _batching(flags)
    metrics_path = read_metrics_path(flags.monitoring_config_file) if flags.monitoring_config_file else None
    configs = _model_configs(flags)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parallelism = Parallelism(flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism)
    version = check_runtime(parallelism)
    metrics = ServingMetrics()
    options = LoadOptions(tuple(flags.saved_model_tags.split(",")), parallelism, batching)
    catalog = Catalog(configs, _loader(options, metrics))
    service = Service(catalog, metrics)
    gc.set_threshold(50_000, 50, 50)  # requests make little garbage in cycles, and a full collection stops them all
    catalog.refresh()  # before a client can connect, as the real server: no answer beats "not found" for a model that is there
    calls = _start_grpc(flags, service)
    if rest is not None:
        rest.start(RestApi(service, metrics, metrics_path), f"abgate-embedded/{version}")
        logger.info("REST at %s:%d", flags.host, rest.port)
    threading.Thread(target=_watch, args=(flags, catalog, stop), name="versions", daemon=True).start()
    stop.wait()
    drained = _drain(rest, calls, flags.drain_seconds)
    logger.info("stopped, %s", "nothing in flight was cut" if drained else "requests in flight were cut")
    return 0 if drained else 1


def _start_grpc(flags: Flags, service: Service) -> Any:
    if not flags.port:
        return None
    host = f"[{flags.host}]" if ":" in flags.host else flags.host
    server, port = create_server(service, f"{host}:{max(flags.port, 0)}", flags.grpc_max_threads)
    server.start()
    logger.info("gRPC at %s:%d", host, port)
    return server


def _drain(rest: HttpServer | None, calls: Any, seconds: float) -> bool:
    """Stop both listeners together; True when everything in flight was answered within `seconds`."""
    deadline = time.monotonic() + seconds
    ended = calls.stop(seconds) if calls is not None else None
    drained = rest.stop(seconds) if rest is not None else True
    # grpc cuts what is left at the end of its grace: an end later than that was no drain
    return drained and (ended is None or (ended.wait(seconds) and time.monotonic() < deadline))


def _loader(options: LoadOptions, metrics: ServingMetrics) -> Any:
    sizes = options.batching.allowed_batch_sizes if options.batching else ()

    def load(name: str, version: int, directory: str) -> Servable:
        servable = Servable(name, version, directory, options, metrics)
        calls = warm_up(servable, sizes or (1,))
        logger.info("%s version %d warmed up with %d calls", name, version, calls)
        return servable

    return load


def _model_configs(flags: Flags) -> tuple[ModelConfig, ...]:
    if flags.model_config_file:
        return read_model_configs(flags.model_config_file)
    if not flags.model_base_path:
        raise ConfigError("--model_base_path or --model_config_file is required")
    return (ModelConfig(flags.model_name, flags.model_base_path),)


def _batching(flags: Flags) -> BatchingParameters | None:
    if not flags.enable_batching:
        if flags.batching_parameters_file:
            raise ConfigError("--batching_parameters_file is set without --enable_batching")
        return None
    if not flags.batching_parameters_file:
        return BatchingParameters(num_batch_threads=os.cpu_count() or 1)
    return read_batching_parameters(flags.batching_parameters_file)


def _watch(flags: Flags, catalog: Catalog, stop: threading.Event) -> None:
    reread_every = flags.model_config_file_poll_wait_seconds
    read_at = time.monotonic()

    def reread() -> None:
        nonlocal read_at
        if not flags.model_config_file or reread_every <= 0 or time.monotonic() - read_at < reread_every:
            return
        read_at = time.monotonic()
        try:
            catalog.configure(read_model_configs(flags.model_config_file))
        except ConfigError as error:
            logger.error("the models stay as they are: %s", error)

    try:
        poll(catalog, flags.file_system_poll_wait_seconds, stop, reread)
    except Exception:
        logger.exception("watching the base paths failed; the versions stay as they are")
