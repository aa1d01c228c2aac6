"""The gateway's admin API and plain HTTP GETs, as the load test needs them.

A thin client on the standard library; it never retries. Judging what comes back belongs to the caller.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any


class AdminError(Exception):
    """The admin API could not be used; the text says how it failed."""


def fetch(
    url: str, token: str | None = None, method: str = "GET", timeout: float = 3.0, cafile: str | None = None
) -> bytes:
    """A response's body; raises AdminError for anything but a 200."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, method=method, headers=headers, data=b"" if method == "POST" else None)
    tls = [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=cafile))] if cafile else []
    # without proxies: one in the environment is meant for elsewhere
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *tls)
    try:
        with opener.open(request, timeout=timeout) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(300).decode("utf-8", "replace")
        hint = "; the admin API wants its token" if error.code in (401, 403) else ""
        raise AdminError(f"{url}: HTTP {error.code}{hint}: {text}") from error
    except (OSError, ValueError, HTTPException) as error:
        raise AdminError(f"{url}: {getattr(error, 'reason', None) or error}") from error


class Admin:
    """The admin API at one address; over TLS where the certificates to trust are given."""

    def __init__(self, address: str, token: str | None, cafile: str | None = None) -> None:
        self._base = f"{'https' if cafile else 'http'}://{address}/admin/v1"
        self._cafile = cafile
        self._token = token

    def _json(self, path: str, method: str = "GET", timeout: float = 3.0) -> dict[str, Any]:
        body = fetch(f"{self._base}{path}", self._token, method, timeout, self._cafile)
        try:
            document = json.loads(body)
        except ValueError as error:
            raise AdminError(f"{self._base}{path}: no JSON") from error
        if not isinstance(document, dict):
            raise AdminError(f"{self._base}{path}: no JSON object")
        return document

    def experiments(self) -> dict[str, Any]:
        """{"revision", "experiments": {model: {...}}}."""
        return self._json("/experiments")

    def status(self) -> dict[str, Any]:
        """pids, loop lag, versions, config sha256."""
        return self._json("/status")

    def records(self) -> dict[str, Any]:
        """{"queued", "written", "dropped", ...}."""
        return self._json("/records")

    def flush_records(self) -> list[str]:
        """Make the gateway write its records as segments; their paths."""
        segments = self._json("/records/flush", "POST", timeout=30.0).get("segments")
        if not isinstance(segments, list):
            raise AdminError(f"{self._base}/records/flush: no list of segments")
        return [str(path) for path in segments]
