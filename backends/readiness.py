"""When a server may be called ready: what to ask each kind, and how its answer reads.

Lives here: one short HTTP question per call, answered with None (ready) or the reason why not. No loops, no waiting.
TorchServe's /ping is no readiness (healthy while its workers crash-loop): its management API's worker status is.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from backends.spec import BackendSpec, host_port

TIMEOUT = 1.0


def get(address: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """One GET on a fresh connection; raises OSError or http.client.HTTPException when there is no answer."""
    host, port = host_port(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers={"connection": "close", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def ask(address: str, path: str, headers: dict[str, str] | None = None) -> tuple[Any, str]:
    """GET a JSON answer: (value, "") or (None, why not)."""
    try:
        status, body = get(address, path, headers)
        if status != 200:
            return None, f"{address}{path} answers {status}"
        return json.loads(body), ""
    except (OSError, http.client.HTTPException) as fault:
        return None, f"{address} does not answer: {fault}"
    except ValueError:
        return None, f"{address}{path} does not answer JSON"


def backend_unready(spec: BackendSpec, cwd: str | None) -> str | None:
    """None when every model of the backend can be used, else what is missing; `cwd` is where TorchServe keeps its token."""
    for model in spec.models:
        reason = (
            torchserve_model(spec, model.name, cwd) if spec.kind == "torchserve" else tfserving_model(spec, model.name)
        )
        if reason is not None:
            return f"{model.name}: {reason}"
    return None


def torchserve_model(spec: BackendSpec, model: str, cwd: str | None) -> str | None:
    """None when every worker of the model is READY (worker status of GET /models/<model> on the management address)."""
    assert spec.management is not None
    found, reason = ask(spec.management, f"/models/{model}", management_token(cwd))
    if found is None:
        return reason
    return unready_workers(found, spec.workers)


def unready_workers(description: list[dict[str, Any]], expected: int) -> str | None:
    """Read TorchServe's description of a model: None when `expected` workers or more are there and all are READY."""
    states = [worker["status"] for version in description for worker in version["workers"]]
    if len(states) >= expected and all(state == "READY" for state in states):
        return None
    return f"workers {states or 'none'}, expected {expected} READY"


def management_token(cwd: str | None) -> dict[str, str]:
    """The header that TorchServe's management API wants when token authorisation is on (key_file.json in its folder)."""
    path = Path(cwd or ".") / "key_file.json"
    try:
        return {"authorization": f"Bearer {json.loads(path.read_text())['management']['key']}"}
    except (OSError, ValueError, KeyError):
        return {}


def tfserving_model(spec: BackendSpec, model: str) -> str | None:
    """None when a version of the model is AVAILABLE (TF Serving's GET /v1/models/<model>)."""
    found, reason = ask(spec.http, f"/v1/models/{model}")
    if found is None:
        return reason
    states = [version["state"] for version in found.get("model_version_status", [])]
    return None if "AVAILABLE" in states else f"versions {states or 'none'}, expected one AVAILABLE"


def page_unready(address: str, path: str) -> str | None:
    """None when a GET answers 200."""
    try:
        status, _ = get(address, path)
    except (OSError, http.client.HTTPException) as fault:
        return f"{address} does not answer: {fault}"
    return None if status == 200 else f"{address}{path} answers {status}"
