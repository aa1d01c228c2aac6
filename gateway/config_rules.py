"""The rules between keys of abgate.yaml: what one section says must fit what another says.

PURE: takes the parts that were readable by themselves, returns problems as "path: what is wrong; what would be right".
Opens no file (config does) and knows no default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.config_schema import AdminSection, ArmSection, BackendSection, CaptureSection, ListenSection, ModelSection

# kind -> what an arm's format may be; tfs-json to a TensorFlow Serving is no choice, it has no other
_FORMATS = {
    "torchserve": ("oip-binary", "tfs-json"),
    "tensorflow_serving": ("oip-binary",),
    "open_inference": ("oip-binary", "oip-json"),
}
_LEAST_CAPTURE = 64 << 10


@dataclass(frozen=True)
class Parts:
    """The readable parts of a file; backend_names and model_names hold every one's, readable or not, None where there is no
    such section."""

    listen: ListenSection | None = None
    admin: AdminSection | None = None
    capture: CaptureSection | None = None
    backend_names: frozenset[str] | None = None
    backends: Mapping[str, BackendSection] = field(default_factory=dict)
    model_names: frozenset[str] | None = None
    models: Mapping[str, ModelSection] = field(default_factory=dict)
    forward_headers: frozenset[str] = frozenset()


def problems(parts: Parts) -> list[str]:
    """Every broken rule, one line each."""
    found = [*_listeners(parts), *_capture(parts), *_backends(parts)]
    ids: dict[str, str] = {}
    for name, model in parts.models.items():
        found.extend(_model(name, model, parts))
        experiment = model.experiment
        if experiment is not None:
            first = ids.setdefault(experiment.id, name)
            if first != name:
                found.append(
                    f"models.{name}.experiment.id: {experiment.id!r} is also the id of model {first!r}; ids are unique"
                )
    return found


def _listeners(parts: Parts) -> Iterator[str]:
    listen = parts.listen
    if listen is None:
        return
    if listen.http == listen.grpc and listen.http.port:
        yield f"listen.grpc: {listen.grpc} is listen.http's too; give each its own port"
    if parts.admin is not None and parts.admin.token_file is None:
        for key, address in (("http", listen.http), ("grpc", listen.grpc)):
            if not address.is_loopback:
                yield (
                    f"listen.{key}: {address} can be reached from other machines and admin.token_file is not set; "
                    "set a token file or listen on 127.0.0.1"
                )


def _capture(parts: Parts) -> Iterator[str]:
    capture = parts.capture
    if capture is None:
        return
    if capture.size < _LEAST_CAPTURE:
        yield f"capture.size: {capture.size} bytes hold no capture; give it at least {_LEAST_CAPTURE >> 10}KiB"
    elif capture.body > capture.size:
        yield f"capture.body: {capture.body} bytes are more than capture.size, all captures' {capture.size}"
    for name in capture.models:
        if parts.model_names is not None and name not in parts.model_names:
            known = ", ".join(sorted(parts.model_names)) or "none"
            yield f"capture.models: there is no model {name!r}; there are: {known}"


def _backends(parts: Parts) -> Iterator[str]:
    taken: dict[str, str] = {}
    if parts.listen is not None:
        taken = {str(parts.listen.http): "listen.http", str(parts.listen.grpc): "listen.grpc"}
    for name, backend in parts.backends.items():
        where = f"backends.{name}"
        for key in ("http", "grpc", "management", "metrics"):
            address = getattr(backend, key)
            if address is None:
                continue
            mine = f"{where}.{key}"
            local = backend.start == "local"  # servers that run already may share a port, behind a proxy for one
            owner = taken.setdefault(address.authority, mine) if local else taken.get(address.authority, mine)
            shared = key == "metrics" and owner == f"{where}.http"  # TF Serving's metrics are a path of its REST port
            if owner != mine and not shared and (local or owner.startswith("listen.")):
                yield f"{mine}: {address.authority} is {owner}'s too; give each its own port"
            if backend.start == "local" and not address.is_loopback:
                yield f"{mine}: start: local runs servers on 127.0.0.1 only, not {address.host}"
        yield from _addresses(where, backend)
        if backend.start == "none" and backend.binary is not None:
            yield f"{where}.binary: is for start: local; with start: none the server is running already"
        if backend.token_file is not None:
            yield from _token(f"{where}.token_file", backend, parts)
        if backend.cores is not None and (not backend.cores or len(set(backend.cores)) != len(backend.cores)):
            yield f"{where}.cores: must name at least one core, each once, or be null for all; not {backend.cores}"


def _addresses(where: str, backend: BackendSection) -> Iterator[str]:
    """A server must be reachable, and one that is started here is given both of its ports."""
    local = backend.start == "local" and backend.kind != "open_inference"
    if backend.start == "local" and not local:
        yield f"{where}.start: local starts torchserve and tensorflow_serving; start an open_inference server yourself"
    if backend.http is None and backend.grpc is None:
        yield f"{where}: has neither http nor grpc; give it the address it listens on, such as http: 127.0.0.1:8000"
        return
    for key in ("http", "grpc"):
        needed = local or (key == "http" and backend.kind == "torchserve")
        if needed and getattr(backend, key) is None:
            why = (
                "with start: local"
                if backend.start == "local"
                else "with kind: torchserve, whose readiness is asked there"
            )
            yield f"{where}.{key}: is missing, and is needed {why}"


def _arm(where: str, arm: ArmSection, backend: BackendSection) -> Iterator[str]:
    """What an arm asks of its backend."""
    if arm.transport is not None and getattr(backend, arm.transport) is None:
        yield f"{where}.transport: backend {arm.backend!r} has no {arm.transport} address; give it one or leave transport out"
    if arm.streams and (backend.kind != "torchserve" or backend.grpc is None):
        yield f"{where}.streams: is for a torchserve backend with a grpc address: its StreamPredictions is what streams"
    takes = _FORMATS[backend.kind]
    if arm.format is not None and arm.format not in takes:
        right = f"must be {' or '.join(takes)}" if takes else "has no meaning"
        yield f"{where}.format: {right} with kind: {backend.kind}, not {arm.format}"
    for key in ("inputs", "outputs"):
        names = getattr(arm.names, key)
        twice = sorted({theirs for theirs in names.values() if list(names.values()).count(theirs) > 1})
        if twice:
            yield f"{where}.names.{key}: {', '.join(twice)} stands for more than one of ours; each has a name of its own"


def _opaque(where: str, model: ModelSection, parts: Parts) -> Iterator[str]:
    """Bytes that only a TorchServe handler knows need a codec for every other kind of arm, and that a signature."""
    codec = model.opaque.codec if model.opaque is not None else None
    if codec is not None and model.signature == "none":
        yield f"{where}.opaque.codec: makes tensors of a signature and there is none; give the model a signature"
    for arm_name, arm in model.arms.items():
        backend = parts.backends.get(arm.backend)
        if backend is not None and backend.kind != "torchserve" and codec is None:
            yield (
                f"{where}.arms.{arm_name}.backend: {arm.backend!r} is no torchserve backend, and a TorchServe handler's "
                "own bytes (signature: none, opaque) can be sent to no other without opaque.codec"
            )
        if backend is not None and backend.kind == "torchserve" and arm.transport == "grpc":
            yield f"{where}.arms.{arm_name}.transport: a handler's own bytes go over http; leave transport out"


def _token(mine: str, backend: BackendSection, parts: Parts) -> Iterator[str]:
    if backend.kind != "torchserve":
        yield f"{mine}: is for kind: torchserve; no other kind of server is given a token"
    elif backend.start == "local":
        yield f"{mine}: is for start: none; a TorchServe started here is on 127.0.0.1 only and asks for no token"
    if "authorization" in parts.forward_headers:
        yield f"forward_headers: the clients' authorization would go beside {mine}'s; leave one of them out"


def _model(name: str, model: ModelSection, parts: Parts) -> Iterator[str]:
    where = f"models.{name}"
    several = len(model.arms) > 1
    for arm_name, arm in model.arms.items():
        if parts.backend_names is not None and arm.backend not in parts.backend_names:
            known = ", ".join(sorted(parts.backend_names)) or "none"
            yield f"{where}.arms.{arm_name}.backend: there is no backend {arm.backend!r}; there are: {known}"
        if arm.backend in parts.backends:
            yield from _arm(f"{where}.arms.{arm_name}", arm, parts.backends[arm.backend])
        if several and arm.weight is None:
            yield f"{where}.arms.{arm_name}.weight: is missing; give every arm a whole number, such as 50"
    if all(arm.weight == 0 for arm in model.arms.values()):
        yield f"{where}.arms: every weight is 0, so nothing could be served; give one arm a weight above 0"
    if several and model.experiment is None:
        yield f"{where}.experiment: is missing; a model with several arms needs one, such as {{id: {name}-ab, salt: 7f3a}}"
    if not several and model.experiment is not None:
        yield f"{where}.experiment: needs at least two arms; leave it out for plain routing"
    if model.signature == "none" or model.opaque is not None:
        yield from _opaque(where, model, parts)
    if model.signature == "import":
        kinds = {parts.backends[arm.backend].kind for arm in model.arms.values() if arm.backend in parts.backends}
        if kinds and not kinds & {"tensorflow_serving", "open_inference"}:
            yield (
                f"{where}.signature: import reads a tensorflow_serving or open_inference arm's metadata and there is none; "
                "give a path"
            )
