"""How commands talk to a running gateway: its address and token from abgate.yaml, JSON over one short connection each."""

from __future__ import annotations

import getpass
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config import Config, load
from gateway.config_units import Address
from gateway.errors import AbgateError


class GatewayError(AbgateError):
    """The gateway cannot be reached or says no; its own words."""


@dataclass(frozen=True)
class GatewayClient:
    """One gateway's HTTP side; url has no trailing slash."""

    url: str
    token: str | None = None
    cafile: Path | None = None

    def call(self, method: str, path: str, body: Any = None, *, timeout_s: float = 60.0) -> Any:
        """The decoded answer; GatewayError with the gateway's words for anything but a 2xx."""
        data = None if body is None else json.dumps(body).encode()
        status, _, text = self.request(method, path, data, {"content-type": "application/json"}, timeout_s=timeout_s)
        try:
            found = json.loads(text)
        except ValueError:
            raise GatewayError(f"{self.url}{path} answers {status} and no JSON; is it an abgate gateway?") from None
        if not 200 <= status < 300:
            raise GatewayError(f"{method} {path}: {status}: {found.get('error', found)}")
        return found

    def request(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str], *, timeout_s: float = 60.0
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of any answer; GatewayError when there is none."""
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        if self.token is not None:
            request.add_header("authorization", f"Bearer {self.token}")
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler({})
        ]  # a gateway is never behind a proxy
        if self.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self.cafile)))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as answer:
                return answer.status, _lower(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _lower(error.headers), error.read()
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise GatewayError(f"{self.url} does not answer: {reason}; is the gateway running (abgate up)?") from None


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def reachable(address: Address) -> Address:
    """An address to connect to: who listens everywhere is reached over loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    return Address(host, address.port)


def client_for(config: Config) -> GatewayClient:
    """The client of the gateway that a configuration describes."""
    listen = config.document.listen
    scheme = "https" if listen.tls else "http"
    return GatewayClient(
        f"{scheme}://{reachable(listen.http)}", config.token(), listen.tls.cert if listen.tls else None
    )


def client(path: Path, url: str | None, token_file: Path | None) -> GatewayClient:
    """The gateway at url, or the one of the configuration file."""
    if url is None:
        return client_for(load(path))
    token = token_file.read_text("utf-8").strip() if token_file is not None else None
    return GatewayClient(url.rstrip("/"), token)


def user() -> str:
    """Who runs the command, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
