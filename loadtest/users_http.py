"""The REST user: TF Serving's predict API over a keep-alive HTTP/1.1 connection of its own.

A request is three byte strings joined and one send; the answer goes through geventhttpclient's parser (llhttp). No
redirects, no cookies, no retries: what a server does to a request is what the ledger must show.
"""

from __future__ import annotations

from select import POLLERR, POLLHUP, POLLIN
from time import perf_counter

from gevent import select, socket, ssl
from geventhttpclient._parser import HTTPParseError, HTTPResponseParser

from loadtest.answers import Judge, rows_of_json
from loadtest.payloads import Payload
from loadtest.session import Session
from loadtest.targets import request_head, split_address, unit_line
from loadtest.users import Exchange, LoadUser

_IDLE = 0.5  # seconds after which a kept connection is looked at before it is used again


class _Response(HTTPResponseParser):
    """Collects one response; header names in lower case, a repeated header's last value."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.complete = False
        self._name = ""
        self._value = ""

    def _on_status(self, text: str) -> None:
        pass

    def _on_message_begin(self) -> None:
        self.headers.clear()  # an interim 1xx answer is followed by the real one
        self.complete = False

    def _on_header_field(self, text: str) -> None:
        if self._value:
            self._keep()
        self._name += text

    def _on_header_value(self, text: str) -> None:
        self._value += text

    def _keep(self) -> None:
        self.headers[self._name.lower()] = self._value
        self._name = self._value = ""

    def _on_headers_complete(self) -> bool:
        self._keep()
        return False

    def _on_body(self, data: bytes) -> None:
        self.body.append(bytes(data))

    def _on_message_complete(self) -> None:
        self.complete = self.get_code() >= 200


class _Closed(Exception):
    """The connection ended before a whole answer."""


class Connection:
    """One keep-alive connection, opened when needed. timeout in seconds, for the whole answer."""

    def __init__(self, host: str, port: int, timeout: float, context: ssl.SSLContext | None = None) -> None:
        self._address = (host, port)
        self._context = context
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._used = 0.0

    def exchange(self, data: bytes) -> _Response:
        """Send a request and read its answer; raises OSError, HTTPParseError or _Closed and closes."""
        begin = perf_counter()
        try:
            sock = self._connected(begin)
            sock.sendall(data)
            response = _Response()
            while not response.complete:
                chunk = sock.recv(65536)
                if not chunk:
                    raise _Closed
                response.feed(chunk)
                if not response.complete and perf_counter() - begin > self._timeout:
                    raise TimeoutError
        except BaseException:
            self.close()
            raise
        self._used = perf_counter()
        if not response.should_keep_alive():
            self.close()
        return response

    def _connected(self, now: float) -> socket.socket:
        if self._socket is not None and now - self._used > _IDLE:
            # a server may have closed a connection it found idle: nothing was asked on it, so that is no error of its
            poll = select.poll()
            poll.register(self._socket, POLLIN | POLLHUP | POLLERR)
            if poll.poll(0):
                self.close()
        if self._socket is None:
            self._socket = socket.create_connection(self._address, self._timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                self._socket = self._context.wrap_socket(self._socket, server_hostname=self._address[0])
        return self._socket

    def close(self) -> None:
        """Close the connection if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class RestUser(LoadUser):
    """POSTs predict requests in row format."""

    abstract = True
    wanted = "tfs-rest"

    def open(self, session: Session) -> None:
        """Prepare the fixed parts of every request; the connection opens with the first."""
        job = session.job
        host, port = split_address(job.target.http, "http target")
        context = ssl.create_default_context(cafile=job.target.tls_ca) if job.target.tls_ca else None
        self._connection = Connection(host, port, job.profile.timeout, context)
        self._head = request_head(job.target, job.profile.model, job.profile.timeout)
        self._unit_line = unit_line(job.unit_header)
        self._output = job.output

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def exchange(self, unit: str, request_id: str, payload: Payload) -> Exchange:
        """One POST; the error names what happened to it."""
        body = payload.json
        ids = f"{unit}\r\nx-request-id: {request_id}\r\n\r\n".encode("ascii")
        data = b"%b%d%b%b%b" % (self._head, len(body), self._unit_line, ids, body)
        try:
            response = self._connection.exchange(data)
        except TimeoutError:
            return Exchange(0, "timeout")
        except ConnectionRefusedError:
            return Exchange(0, "refused")
        except (_Closed, ConnectionError):
            return Exchange(0, "reset")
        except HTTPParseError:
            return Exchange(0, "garbage")
        except OSError as error:
            return Exchange(0, f"os error: {error.strerror or type(error).__name__}")
        headers = response.headers.get
        status = response.get_code()
        return Exchange(
            status,
            "" if status == 200 else f"http {status}",
            headers("x-abgate-arm", ""),
            headers("x-abgate-assignment", ""),
            headers("x-request-id", ""),
            response.body[0] if len(response.body) == 1 else b"".join(response.body),
        )

    def judge(self, judge: Judge, body: bytes, payload: Payload) -> bool:
        """Compare the predictions."""
        return judge.rows(rows_of_json(body, self._output), payload.indices)
