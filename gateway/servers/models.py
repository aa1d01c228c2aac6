"""GET status and metadata in TF Serving's JSON, answered by the gateway from what it knows; no server is asked.

PURE: a route in, a document out. Formats: tensorflow_serving/apis/get_model_status.proto and get_model_metadata.proto as
TF Serving prints them over REST (field names kept, default values printed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dataplane import Route
from gateway.errors import RequestError
from gateway.protocol.signature_file import Signature, TensorSpec
from gateway.protocol.versions import version_number
from gateway.servers.http_target import Target

# tensorflow/core/framework/types.proto
_DTYPES = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}


def describe(routes: Mapping[str, Route], target: Target) -> dict[str, Any]:
    """The document a GET under /v1/models answers.

    Raises RequestError: invalid_argument (no model named, unknown label), not_found (unknown model or version).
    """
    if not target.model:
        raise RequestError("invalid_argument", "Missing model name in request.")
    if target.problem:
        raise RequestError("invalid_argument", target.problem)
    route = routes.get(target.model)
    if route is None:
        if target.document == "metadata":
            raise RequestError("not_found", f"Servable not found for request: Latest({target.model})")
        raise RequestError("not_found", f"Could not find any versions of model {target.model}")
    version = target.version
    if target.label:
        version = route.labels.get(target.label, "")
        if not version:
            raise RequestError("invalid_argument", f"Unrecognized servable version label: {target.label}")
    return _metadata(route, version) if target.document == "metadata" else _status(route, version)


def _status(route: Route, version: str) -> dict[str, Any]:
    known = route.known_versions()
    if version:
        number = version_number(version)
        if number not in known:
            raise RequestError("not_found", f"Could not find version {version} of model {route.model}")
        known = {number: known[number]}
    told = {
        "model_version_status": [
            {
                "version": str(number),
                "state": "AVAILABLE" if ready else "LOADING",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for number, ready in known.items()
        ]
    }
    if version:
        return told
    # KServe's v1 clients ask the very path without a version, and take a model without "ready" for one that is not; TF
    # Serving's clients read their own key. The paths with a version or a label are TF Serving's alone, and so are their keys.
    return {**told, "name": route.model, "ready": any(known.values())}


def _metadata(route: Route, version: str) -> dict[str, Any]:
    known = route.known_versions()
    if version and version_number(version) not in known:
        raise RequestError("not_found", f"Servable not found for request: Specific({route.model}, {version})")
    if route.signature is None:
        raise RequestError("not_found", f"the gateway knows no signature of model {route.model!r}")
    definition = _definition(route.signature)
    number = version_number(version) if version else next(iter(known))
    return {
        "model_spec": {
            "name": route.model,
            "signature_name": "",
            "version": str(number),
        },
        "metadata": {"signature_def": {"signature_def": {route.signature.signature_name: definition}}},
    }


def _definition(signature: Signature) -> dict[str, Any]:
    def tensor(spec: TensorSpec) -> dict[str, Any]:
        return {
            "dtype": _DTYPES[spec.datatype],
            "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in spec.shape], "unknown_rank": False},
            "name": f"{signature.signature_name}_{spec.name}:0",
        }

    return {
        "inputs": {spec.name: tensor(spec) for spec in signature.inputs},
        "outputs": {spec.name: tensor(spec) for spec in signature.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
