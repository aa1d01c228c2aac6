"""Who listens on a port: the check before a start, and the proof after it that the listener is ours.

A readiness loop would happily talk to another server on the same port (TorchServe dies of a taken port while the other
answers), so both checks are needed. Lives here: reading the kernel's socket tables. Nothing is opened for long.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

import psutil

from backends.spec import host_port


class PortInUseError(RuntimeError):
    """One or more addresses are taken; the text names each with its owner's pid and command."""


def check_free(addresses: Mapping[str, str]) -> None:
    """Raise PortInUseError unless every address ("what for" -> "host:port") can be bound; nothing stays open."""
    taken = [
        f"{purpose}: {address} is in use by {owner_of(address)}"
        for purpose, address in addresses.items()
        if not can_bind(address)
    ]
    ports: dict[int, str] = {}
    for purpose, address in addresses.items():
        port = host_port(address)[1]
        if port in ports:
            taken.append(f"{purpose}: {address} is also {ports[port]}'s")
        ports[port] = purpose
    if taken:
        raise PortInUseError("\n".join(taken))


def can_bind(address: str) -> bool:
    """Try the address as a server would (SO_REUSEADDR: connections in TIME_WAIT are no obstacle)."""
    host, port = host_port(address)
    family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(target)
            probe.listen(1)
        except OSError:
            return False
    return True


def owner_of(address: str) -> str:
    """The listener of a port as "pid 123 (name)", or why it cannot be told."""
    port = host_port(address)[1]
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return "a process of another user"
            try:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.NoSuchProcess:
                return f"pid {connection.pid} (gone meanwhile)"
    return "no process that can be seen (or the address is not this machine's)"


def listens(pid: int, address: str) -> bool:
    """Tell whether the process or one of its descendants listens on the address's port."""
    port = host_port(address)[1]
    try:
        leader = psutil.Process(pid)
        family = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    for process in family:
        try:
            found = process.net_connections(kind="tcp")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found):
            return True
    return False
