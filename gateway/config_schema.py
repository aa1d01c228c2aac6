"""The shape of abgate.yaml: every key, its type and its default, and nothing that needs a second key to judge.

Rules between keys live in config_rules, reading and error texts in config. Unknown keys are refused. Paths come out
absolute: a relative one counts from the folder of the configuration file (validation context "base").
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationInfo

from gateway import config_units as units

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HEADER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/(\*|[a-z0-9][a-z0-9!#$&^_.+-]*)")
_OWN_HEADERS = frozenset(
    {"x-request-id", "traceparent", "x-request-timeout", "content-type", "content-length", "content-encoding", "host"}
    | {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "expect"}  # these concern one connection only
)


def _name(value: object) -> str:
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        raise ValueError(
            f"must be 1 to 64 letters, digits, '_', '.' or '-', starting with a letter or digit, not {value!r}"
        )
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"must be a text that is not empty (put it in quotes), not {value!r}")
    return value


def _version(value: object) -> str:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,63}", text) is None:
        raise ValueError(f"must be a version such as 1 or '1.0', not {value!r}")
    return text


def _header(value: object) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if HEADER.fullmatch(text) is None:
        raise ValueError(f"must be the name of a header such as x-user-id, not {value!r}")
    if text in _OWN_HEADERS or text.startswith(("x-abgate-", "grpc-")) or text.endswith("-bin"):
        raise ValueError(f"{text!r} has a meaning of its own; take another header, such as x-user-id")
    return text


def _share(value: object) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"must be a share from 0 (none) to 1 (every request), such as 0.01, not {value!r}")
    return float(value)  # type: ignore[arg-type]


def _media_type(value: object) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if MEDIA_TYPE.fullmatch(text) is None:
        raise ValueError(f"must be a media type such as image/jpeg or image/*, not {value!r}")
    return text


def _absolute(value: Path, info: ValidationInfo) -> Path:
    base: Path = (info.context or {}).get("base", Path())
    return Path(base / value.expanduser())


def _path_text(value: object) -> object:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"must be a path, not {value!r}")
    return Path(value)


def _listen(value: object) -> units.Address:
    return value if isinstance(value, units.Address) else units.address(value, any_port=True)


def _address(value: object) -> units.Address:
    return value if isinstance(value, units.Address) else units.address(value)


def _metrics(value: object) -> units.Address:
    return value if isinstance(value, units.Address) else units.address(value, path=True)


Name = Annotated[str, BeforeValidator(_name)]
Text = Annotated[str, BeforeValidator(_text)]
Version = Annotated[str, BeforeValidator(_version)]
HeaderName = Annotated[str, BeforeValidator(_header)]
MediaType = Annotated[str, BeforeValidator(_media_type)]
FilePath = Annotated[Path, BeforeValidator(_path_text), AfterValidator(_absolute)]
Size = Annotated[int, BeforeValidator(units.size)]
Duration = Annotated[float, BeforeValidator(units.duration)]
Listen = Annotated[units.Address, BeforeValidator(_listen)]
AddressField = Annotated[units.Address, BeforeValidator(_address)]
MetricsAddress = Annotated[units.Address, BeforeValidator(_metrics)]
Share = Annotated[float, BeforeValidator(_share)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Natural = Annotated[int, Strict(), Field(ge=0, le=1_000_000)]
Flag = Annotated[bool, Strict()]


class Section(BaseModel):
    """Base of every mapping in the file: frozen, closed, defaults checked like given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True)


class Tls(Section):
    """Both listeners' certificate chain and private key, PEM files."""

    cert: FilePath
    key: FilePath


class ListenSection(Section):
    http: Listen = units.Address("127.0.0.1", 8080)
    grpc: Listen = units.Address("127.0.0.1", 8081)
    tls: Tls | None = None


class AdminSection(Section):
    token_file: FilePath | None = None
    state_file: FilePath = Path(".abgate/state.json")
    audit_file: FilePath = Path(".abgate/audit.jsonl")


class LimitsSection(Section):
    """body and headers in bytes, times in seconds; drain is how long a stop waits for requests under way."""

    body: Size = 32 << 20
    rows: Positive = 1024
    headers: Size = 64 << 10
    concurrency: Positive = 1024
    timeout: Duration = 30.0
    keep_alive: Duration = 75.0
    drain: Duration = 8.0


class RecordsSection(Section):
    """retention in bytes of all segments; queue in rows waiting to be written."""

    path: FilePath = Path(".abgate/records")
    retention: Size = 10 << 30
    queue: Positive = 65536


class CaptureSection(Section):
    """Sampling of real requests, with their bodies, into files that the load test replays.

    share 0: none until somebody asks for it over the admin API. size: bytes of all captures below path; a body over `body`
    bytes is left out; both are also the most that may be asked for. models: empty is all. seed: of the draws.
    """

    path: FilePath = Path(".abgate/capture")
    share: Share = 0.0
    size: Size = 256 << 20
    body: Size = 1 << 20
    models: list[Name] = []
    seed: Natural = 1


class LoggingSection(Section):
    format: Literal["json", "console"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class BatchingSection(Section):
    """The server's dynamic batching; max_batch_size 1 is none; max_wait_ms is the longest a request waits for mates."""

    max_batch_size: Positive = 1
    max_wait_ms: Annotated[float, Field(ge=0, le=60_000)] = 0.0


class BackendSection(Section):
    """A server; one of http and grpc may be left out where it has no such port (torchserve needs http)."""

    kind: Literal["torchserve", "tensorflow_serving", "open_inference"]
    http: AddressField | None = None
    grpc: AddressField | None = None
    management: AddressField | None = None
    metrics: MetricsAddress | None = None
    start: Literal["local", "none"] = "none"
    binary: FilePath | None = None
    token_file: FilePath | None = None
    cores: list[Natural] | None = None
    threads: Positive = 1
    workers: Positive = 1
    batching: BatchingSection = BatchingSection()
    job_queue: Positive = 1000


class NamesSection(Section):
    """Our names of tensors -> the names the arm's server has for them; what is not named is called the same there."""

    inputs: dict[Text, Text] = {}
    outputs: dict[Text, Text] = {}


class ArmSection(Section):
    """weight None counts as 1 for a model's only arm and is refused where there are several; model None is the model's name.

    transport None is the client's where the server has it, else the other. format None: oip-binary at a TorchServe handler,
    and at an open_inference server over HTTP what it says that it takes. streams: the TorchServe handler answers in pieces
    (StreamPredictions on one that does not ends a worker).
    """

    backend: Name
    weight: Natural | None = None
    model: Name | None = None
    version: Version | None = None
    artifact: FilePath | None = None
    transport: Literal["http", "grpc"] | None = None
    format: Literal["oip-binary", "oip-json", "tfs-json"] | None = None
    names: NamesSection = NamesSection()
    streams: Flag = False
    concurrency: Positive | None = None


class UnitSection(Section):
    header: HeaderName | None = None


class ExperimentSection(Section):
    id: Name
    salt: Text
    unit: UnitSection = UnitSection()
    allow_forced_arm: Flag = False


class OpaqueSection(Section):
    """What passes unparsed at TorchServe's /predictions: media_types (empty: any), body in bytes (None: limits.body).

    A request without a Content-Type counts as application/octet-stream. codec: an installed entry point of the group
    abgate.codecs, which turns the bytes into tensors for arms of other kinds.
    """

    media_types: list[MediaType] = []
    body: Size | None = None
    codec: Name | None = None


def _signature(value: object, info: ValidationInfo) -> Any:
    if value in ("import", "none"):
        return value
    return _absolute(Path(str(_path_text(value))), info)


class ModelSection(Section):
    """signature is a path, "import" (read from a TensorFlow Serving or Open Inference arm) or "none" (a TorchServe
    handler's own bytes, which nobody else reads: see opaque); None is the default artefact's file."""

    signature: Annotated[Path | Literal["import", "none"], BeforeValidator(_signature)] | None = None
    opaque: OpaqueSection | None = None
    guard: Literal["strict", "types", "off"] = "strict"
    labels: dict[Name, Version] = {}
    arms: Annotated[dict[Name, ArmSection], Field(min_length=1)]
    experiment: ExperimentSection | None = None


class Document(Section):
    """The whole file; the reader puts an empty section where one is left out, so that its paths find their base."""

    listen: ListenSection
    admin: AdminSection
    limits: LimitsSection
    records: RecordsSection
    capture: CaptureSection
    logging: LoggingSection
    forward_headers: list[HeaderName] = []
    backends: Annotated[dict[Name, BackendSection], Field(min_length=1)]
    models: Annotated[dict[Name, ModelSection], Field(min_length=1)]
