"""What a backend is, in values: which server, where it listens, which models it serves, with how much of the machine.

Lives here: frozen descriptions that every part of `backends` shares, and the reading of an address. Must not live here:
anything that opens a socket, starts a process or writes a file (that is `launch`, and each server's own `plan`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class ServedModel:
    """One model of a backend: `path` is a TF Serving base path, or a TorchServe folder or .mar file."""

    name: str
    path: str
    version: str | None = None


@dataclass(frozen=True)
class Batching:
    """Dynamic batching of the server: `max_batch_size` 1 switches it off; `max_wait_ms` is the longest a request waits."""

    max_batch_size: int = 1
    max_wait_ms: float = 0.0


@dataclass(frozen=True)
class BackendSpec:
    """One server to run. Addresses are "host:port"; `threads` counts per worker; `job_queue` is per
    model, in requests; `max_rows` a request.
    """

    name: str
    kind: str
    http: str
    grpc: str
    management: str | None
    metrics: str | None
    models: tuple[ServedModel, ...]
    cores: tuple[int, ...] | None = None
    threads: int = 1
    workers: int = 1
    batching: Batching = Batching()
    binary: str | None = None
    run_dir: str = ".abgate/run"
    log_dir: str = ".abgate/logs"
    job_queue: int = 1000
    max_rows: int = 1024


@dataclass(frozen=True)
class Command:
    """How to start a server; the files it needs were written by `plan` into run_dir/<name>/."""

    argv: tuple[str, ...]
    env: dict[str, str]
    implementation: str
    stand_in: bool
    cwd: str | None = None


def host_port(address: str) -> tuple[str, int]:
    """Split "host:port" (IPv6 hosts in brackets); raise ValueError saying what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"address {address!r}: expected host:port, e.g. 127.0.0.1:8085")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """Tell whether "host:port" can be reached from this machine only."""
    host, _ = host_port(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
