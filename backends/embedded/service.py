"""What the server answers, independent of the wire: predict, metadata, status, each counted.

Lives here: the use cases and their checks in TF Serving's order. Must not live here: sockets, grpc, URL patterns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from backends.embedded.catalog import Catalog, VersionStatus, Wanted
from backends.embedded.errors import Code, ServingError, invalid
from backends.embedded.json_read import read_document, read_predict, signature_name
from backends.embedded.json_write import render_value, write_columns, write_rows
from backends.embedded.metrics import ServingMetrics
from backends.embedded.servable import Servable
from backends.embedded.signature import Signature
from backends.embedded.tensor_proto import decode_tensor, encode_tensor

T = TypeVar("T")


class Service:
    """The use cases over one catalog; every method may be called from many threads."""

    def __init__(self, catalog: Catalog, metrics: ServingMetrics) -> None:
        from google.protobuf import json_format
        from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

        self._catalog = catalog
        self._metrics = metrics
        self._json_format = json_format
        self._metadata_api = get_model_metadata_pb2
        self._status_api = get_model_status_pb2
        self._predict_api = predict_pb2

    def predict_json(self, wanted: Wanted, body: bytes) -> bytes:
        """Answer a REST predict body; raises ServingError."""
        return self._counted(wanted.name, "REST", lambda: self._predict_json(wanted, body))

    def predict_proto(self, request: Any) -> Any:
        """Answer a tensorflow.serving.PredictRequest; raises ServingError."""
        return self._counted(request.model_spec.name, "GRPC", lambda: self._predict_proto(request))

    def classify_json(self, method: str, body: bytes) -> bytes:
        """Refuse classify and regress: first what TF Serving checks in the body, then that the stand-in serves Predict only."""
        document = read_document(body)
        signature_name(document)
        examples = document.get("examples")
        prefix = f"JSON Value: {render_value(document)} "
        if "examples" not in document:
            raise invalid(prefix + "When method is classify, key 'examples' is expected and was not found")
        if not isinstance(examples, list):
            raise invalid(prefix + "Expecting 'examples' value to be an list/array")
        if not examples:
            raise invalid(prefix + "'examples' value is an empty array")
        raise ServingError(Code.UNIMPLEMENTED, f"the stand-in serves predict only, not {method}")

    def metadata_json(self, wanted: Wanted) -> bytes:
        """Answer REST metadata: the signatures as TF Serving prints them (default values too, original field names)."""
        servable = self._catalog.resolve(wanted)
        printed = self._json_format.MessageToDict(
            self._signature_map(servable), always_print_fields_with_no_presence=True, preserving_proto_field_name=True
        )
        spec = {"name": servable.name, "signature_name": "", "version": str(servable.version)}
        return _pretty({"model_spec": spec, "metadata": {"signature_def": printed}})

    def metadata_proto(self, request: Any) -> Any:
        """Answer a GetModelMetadataRequest; raises ServingError (get_model_metadata_impl.cc)."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != "signature_def":
                raise invalid(f"Metadata field {name} is not supported")
        servable = self._catalog.resolve(_wanted(request.model_spec))
        response = self._metadata_api.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.metadata["signature_def"].Pack(self._signature_map(servable))
        return response

    def status_json(self, wanted: Wanted) -> bytes:
        """Answer REST status; a label is resolved to its version first."""
        version = wanted.version
        if wanted.label is not None:
            version = self._catalog.resolve(wanted).version
        return _pretty({"model_version_status": [_status(s) for s in self._catalog.statuses(wanted.name, version)]})

    def status_proto(self, request: Any) -> Any:
        """Answer a GetModelStatusRequest; a label is ignored and all versions told (only has_version is read there)."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = self._status_api.GetModelStatusResponse()
        for status in self._catalog.statuses(spec.name, version):
            entry = response.model_version_status.add(
                version=status.version, state=self._status_api.ModelVersionStatus.State.Value(status.state)
            )
            entry.status.error_code = int(status.code)
            entry.status.error_message = status.message
        return response

    def _predict_json(self, wanted: Wanted, body: bytes) -> bytes:
        servable: Servable | None = None

        def find(name: str) -> Signature:
            nonlocal servable
            servable = self._catalog.resolve(wanted)
            signature = servable.signature(name)
            if signature is None:
                raise invalid(f'Serving signature name: "{name or "serving_default"}" not found in signature def')
            return signature

        request = read_predict(body, find)
        assert servable is not None
        answers = servable.run(request.signature, request.tensors)
        return write_rows(answers) if request.row else write_columns(answers)

    def _predict_proto(self, request: Any) -> Any:
        spec = request.model_spec
        servable = self._catalog.resolve(_wanted(spec))
        signature = servable.signature(spec.signature_name)
        if signature is None:
            key = spec.signature_name or "serving_default"
            raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.')
        _check_inputs(signature, request.inputs)
        chosen = _chosen_outputs(signature, request.output_filter)
        tensors = {alias: decode_tensor(alias, request.inputs[alias]) for alias in signature.inputs}
        answers = servable.run(signature, tensors)
        response = self._predict_api.PredictResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = signature.name
        for alias in chosen:
            encode_tensor(answers[alias], signature.outputs[alias].dtype, response.outputs[alias])
        return response

    def _signature_map(self, servable: Servable) -> Any:
        signatures = self._metadata_api.SignatureDefMap()
        for key, definition in servable.signature_defs.items():
            signatures.signature_def[key].CopyFrom(definition)
        return signatures

    def _counted(self, model: str, entrypoint: str, answer: Callable[[], T]) -> T:
        start = time.perf_counter_ns()
        try:
            result = answer()
        except ServingError as error:
            # A name no model has stays out of the labels: clients must not be able to grow the metrics.
            self._metrics.requests.add(model if self._catalog.knows(model) else "", error.code.name)
            raise
        self._metrics.latency.record((time.perf_counter_ns() - start) / 1000, model, "Predict", entrypoint)
        self._metrics.requests.add(model, "OK")
        return result


def _wanted(spec: Any) -> Wanted:
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    choice = spec.WhichOneof("version_choice")
    return Wanted(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _check_inputs(signature: Signature, given: Any) -> None:
    """Compare names with the signature's (predict_util.cc:65)."""
    extra = sorted(set(given) - set(signature.inputs))
    missing = sorted(set(signature.inputs) - set(given))
    if len(given) != len(signature.inputs):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(signature.inputs)} len({_braces(sorted(given))}) !="
            f" len({_braces(signature.inputs)}). Sent extra: {_braces(extra)}. Missing but required: {_braces(missing)}."
        )
    if extra:
        raise invalid(
            f"input tensor alias not found in signature: {extra[0]}. Inputs expected to be in the set"
            f" {_braces(signature.inputs)}."
        )


def _chosen_outputs(signature: Signature, wanted: Any) -> list[str]:
    """Apply output_filter (predict_util.cc:138, 146)."""
    chosen: list[str] = []
    for alias in wanted:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set"
                f" {_braces(signature.outputs)}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or list(signature.outputs)


def _braces(names: Any) -> str:
    return "{" + ",".join(names) + "}"


def _status(status: VersionStatus) -> dict[str, Any]:
    return {
        "version": str(status.version),
        "state": status.state,
        "status": {"error_code": status.code.name, "error_message": status.message},
    }


def _pretty(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()
