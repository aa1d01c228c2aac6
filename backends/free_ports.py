"""Ports for servers that are yet to start: such as stay free until then. Imports nothing of ours: all packages may use it.

They lie below those the kernel gives to outgoing connections, for one of these could take a port between its being chosen here
and a server's listening on it. Where no such range is known the kernel chooses.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

_FIRST, _STRIDE = 12_000, 7_919
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_given = itertools.count()


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on, none given twice by this process; raises OSError where there are too few."""
    with ExitStack() as held:
        ports: list[int] = []
        for wanted in _candidates(count):
            if len(ports) == count:
                break
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server would: TIME_WAIT is no obstacle
            try:
                probe.bind(("127.0.0.1", wanted))
                probe.listen(1)
            except OSError:
                continue
            ports.append(int(probe.getsockname()[1]))
    if len(ports) < count:
        raise OSError(f"{count} free ports are wanted, {len(ports)} were found")
    return ports


def _candidates(count: int) -> Iterator[int]:
    """Ports to try, each once until all have been given; 0, which is the kernel's choice, so often as there are wanted."""
    try:
        end = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        end = 0
    size = end - _FIRST
    if size < 1_000:
        yield from [0] * (count + 1)
        return
    start = os.getpid() * _STRIDE  # processes side by side begin far from each other
    for step in itertools.islice(_given, size):
        yield _FIRST + (start + step) % size
