"""The gateway's own sockets: bound before anything else is built, so that a taken port is told at once and by its owner.

IO only. SO_REUSEPORT stays off: with it two gateways would share a port silently.
"""

from __future__ import annotations

import socket

from gateway.config_units import Address
from gateway.errors import AbgateError


class StartError(AbgateError):
    """The gateway cannot start, for a reason outside its configuration."""


def bind(key: str, address: Address) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one. StartError names the key, the address and who has the port."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, target = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"{key}: {address} cannot be listened on: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise StartError(f"{key}: {address} cannot be listened on: {error.strerror}{_owner(address.port)}") from error
    return listener


def bound(listener: socket.socket) -> Address:
    """Where a socket listens really, its port known."""
    host, port = listener.getsockname()[:2]
    return Address(host, port)


def _owner(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
                return f"; it belongs to pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return ""
