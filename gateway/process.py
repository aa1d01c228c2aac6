"""The process around a gateway: one event loop, signals, logs. Everything else is app.py's.

SIGTERM and SIGINT drain and stop, a second SIGINT ends at once, SIGHUP reads the configuration again.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import structlog

from gateway.app import Gateway
from gateway.config import Config
from gateway.controlplane import Author
from gateway.errors import ConfigError
from gateway.preflight import Prepared, prepare
from gateway.telemetry.logs import configure as configure_logs


async def serve(prepared: Prepared, info_file: Path | None = None) -> None:
    """Run a gateway until SIGTERM or SIGINT; SIGHUP reloads. A second SIGINT ends it at once."""
    loop = asyncio.get_running_loop()
    gateway = Gateway(prepared, info_file)
    stop = asyncio.Event()

    def asked_to_stop() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    async def reload() -> None:
        try:
            await gateway.reload(Author("SIGHUP", "signal"))
        except ConfigError as error:
            structlog.get_logger("abgate").error("config.refused", problems=list(error.problems))

    reloads: set[asyncio.Task[None]] = set()

    def asked_to_reload() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGINT, asked_to_stop)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, asked_to_reload)
    await gateway.start()
    await stop.wait()
    await gateway.stop()


def run(config: Config, info_file: Path | None = None) -> None:
    """Check, then serve until told to stop; raises ConfigError or StartError before anything is served."""
    import uvloop

    prepared = prepare(config)
    logging = config.document.logging
    configure_logs(logging.format, logging.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(prepared, info_file))
