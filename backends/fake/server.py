"""The fake as a running thing: two listeners and their threads, started and stopped in one process."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from backends.fake.behaviour import Behaviour, Shape
from backends.fake.http import serve_connection
from backends.fake.rpc import FakeRpc
from backends.spec import host_port


class FakeBackend:
    """A fake on two addresses; port 0 takes a free one, `http` and `grpc` tell which after `start`."""

    def __init__(
        self,
        http: str = "127.0.0.1:0",
        grpc: str = "127.0.0.1:0",
        shape: Shape | None = None,
        mode: str = "ok",
        delay_ms: float = 0,
    ) -> None:
        """Describe only; nothing listens before `start`."""
        self.behaviour = Behaviour(shape or Shape(), mode, delay_ms)
        self.http, self.grpc = http, grpc
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def start(self) -> FakeBackend:
        """Listen on both addresses; raises OSError or RuntimeError when one is taken."""
        host, port = split(self.http)
        self._listener = socket.create_server((host, port), backlog=256)
        self.http = f"{host}:{self._listener.getsockname()[1]}"
        self._server = grpc.server(
            ThreadPoolExecutor(64, thread_name_prefix="fake-grpc"),
            handlers=(FakeRpc(self.behaviour),),
            options=(
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
            ),
        )
        host, _ = split(self.grpc)
        self.grpc = f"{host}:{self._server.add_insecure_port(self.grpc)}"
        self._server.start()
        self._thread = threading.Thread(target=self._accept, name="fake-http", daemon=True)
        self._thread.start()
        return self

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed by stop
                return
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="fake-connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        serve_connection(connection, self.behaviour)
        with self._lock:
            self._open.discard(connection)

    def stop(self) -> None:
        """Close both listeners and every connection; what hangs is let go."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        self.behaviour.set("ok")
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server.stop(grace=0).wait(5)
        self._thread.join(5)

    def __enter__(self) -> FakeBackend:
        """Start, for a with statement."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Stop."""
        self.stop()


def split(address: str) -> tuple[str, int]:
    """Like host_port, but port 0 is allowed."""
    if address.endswith(":0"):
        return address.removesuffix(":0"), 0
    return host_port(address)
