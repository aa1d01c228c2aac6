"""Reads abgate.yaml: text -> checked Config, or every problem at once, each with its path and what would be right.

Lives here: reading, the words of problems, and the values derived from the file (specifications, hash). The keys are in
config_schema, the rules between keys in config_rules. There is one source of values: the file; no environment variable
changes any. Relative paths count from the folder of the file.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gateway import config_schema as schema
from gateway.config_rules import Parts, problems
from gateway.errors import ConfigError
from gateway.experiments.model import ArmSpec, Experiment, ModelSpec, Opaque

DEFAULT_NAME = "abgate.yaml"
_SECTIONS = ("listen", "admin", "limits", "records", "capture", "logging")


@dataclass(frozen=True)
class Config:
    """A checked configuration: the document, the folder its relative paths count from, its text and the text's SHA-256."""

    document: schema.Document
    path: Path
    base: Path
    text: str
    sha256: str

    @property
    def run_dir(self) -> Path:
        """Where running processes keep their files."""
        return self.base / ".abgate" / "run"

    def artifacts(self, model: str) -> Path:
        """The folder of a model's built artefacts."""
        return self.base / "model_store" / "artifacts" / model

    def signature_path(self, model: str) -> Path | None:
        """The model's signature file, None where it is imported from a server or there is none."""
        given = self.document.models[model].signature
        return given if isinstance(given, Path) else None if given else self.artifacts(model) / "signature.json"

    def imports(self, model: str) -> bool:
        """Whether there is such a model and its signature comes from a server."""
        return model in self.document.models and self.document.models[model].signature == "import"

    def artifact(self, model: str, arm: str) -> Path:
        """What a local backend serves for an arm: its artifact, or the built one of the backend's kind."""
        section = self.document.models[model].arms[arm]
        kind = self.document.backends[section.backend].kind
        if section.artifact is not None:
            return section.artifact
        folder = self.artifacts(model)
        return folder / "torchserve" / model if kind == "torchserve" else folder / "savedmodel"

    def token(self) -> str | None:
        """The admin token, None where none is configured; ConfigError when its file is missing or empty."""
        path = self.document.admin.token_file
        if path is None:
            return None
        try:
            token = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError([f"admin.token_file: {path} cannot be read: {error}"]) from error
        if not token or not token.isascii() or len(token.split()) != 1:
            raise ConfigError([f"admin.token_file: {path} must hold one token, a word of ASCII characters"])
        return token

    def specs(self) -> dict[str, ModelSpec]:
        """Every model as the experiments know it, with the YAML's own weights."""
        kinds = {name: backend.kind for name, backend in self.document.backends.items()}
        return {name: _spec(name, model, kinds) for name, model in self.document.models.items()}


def _pairs(names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((ours, theirs) for ours, theirs in names.items() if ours != theirs)


def _spec(name: str, model: schema.ModelSection, kinds: Mapping[str, str]) -> ModelSpec:
    arms = tuple(
        ArmSpec(
            name=arm_name,
            backend=arm.backend,
            weight=1 if arm.weight is None else arm.weight,
            model=arm.model or name,
            version=arm.version,
            format=arm.format or ("" if kinds[arm.backend] == "open_inference" else "oip-binary"),
            concurrency=arm.concurrency,
            transport=arm.transport or "",
            inputs=_pairs(arm.names.inputs),
            outputs=_pairs(arm.names.outputs),
            streams=arm.streams,
        )
        for arm_name, arm in model.arms.items()
    )
    given = model.experiment
    experiment = Experiment(given.id, given.salt, given.unit.header, given.allow_forced_arm) if given else None
    bare = model.signature == "none"
    terms = model.opaque or (schema.OpaqueSection() if bare else None)
    return ModelSpec(
        name=name,
        arms=arms,
        experiment=experiment,
        guard="off" if bare else model.guard,
        labels=dict(model.labels),
        opaque=Opaque(tuple(terms.media_types), terms.body, terms.codec or "") if terms else None,
    )


def load(path: Path) -> Config:
    """Read and check a configuration file; ConfigError with every problem found."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file; `abgate init` writes one"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Config:
    """Check a configuration's text; path says where it stands and need not exist. Raises ConfigError."""
    try:
        raw = yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain values only
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: is not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(raw, dict):
        raise ConfigError([f"{path}: must be a mapping with the keys backends and models"])
    for section in _SECTIONS:
        if raw.get(section) is None:
            raw[section] = {}
    base = path.absolute().parent
    context = {"base": base}
    try:
        document = schema.Document.model_validate(raw, context=context)
    except ValidationError as error:
        found = [_explain(item) for item in error.errors(include_url=False)]
        raise ConfigError(found + problems(_parts(raw, context))) from None
    found = problems(_parts(raw, context))
    if found:
        raise ConfigError(found)
    return Config(document, path, base, text, sha256(text.encode()).hexdigest())


class _Loader(yaml.SafeLoader):
    """YAML with plain values only, in which a key that is there twice is an error (the first would be lost silently)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen and key != "<<":
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is there twice", problem_mark=key_node.start_mark)
            seen.add(key if isinstance(key, str) else repr(key))
        return super().construct_mapping(node, deep)


def _parts(raw: Mapping[str, Any], context: dict[str, Any]) -> Parts:
    """Whatever is readable by itself, so that rules between keys are checked beside broken ones."""

    def one(kind: type[Any], value: Any) -> Any:
        try:
            return TypeAdapter(kind).validate_python(value, context=context)
        except ValidationError as error:
            unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
            return one(kind, _without(value, unknown)) if unknown else None

    def many(kind: type[Any], values: Any) -> dict[str, Any]:
        items = values.items() if isinstance(values, dict) else ()
        read = {str(name): one(kind, value) for name, value in items}
        return {name: value for name, value in read.items() if value is not None}

    backends, models = raw.get("backends"), raw.get("models")
    return Parts(
        listen=one(schema.ListenSection, raw["listen"]),
        admin=one(schema.AdminSection, raw["admin"]),
        capture=one(schema.CaptureSection, raw["capture"]),
        backend_names=frozenset(map(str, backends)) if isinstance(backends, dict) else None,
        backends=many(schema.BackendSection, backends),
        model_names=frozenset(map(str, models)) if isinstance(models, dict) else None,
        models=many(schema.ModelSection, models),
        forward_headers=frozenset(one(list[schema.HeaderName], raw.get("forward_headers")) or ()),
    )


def _without(value: Any, places: list[tuple[int | str, ...]]) -> Any:
    """A copy of nested mappings without the entries at those places."""
    if not isinstance(value, dict):
        return value
    gone = {place[0] for place in places if len(place) == 1}
    deeper = [place for place in places if len(place) > 1]
    return {
        key: _without(item, [place[1:] for place in deeper if place[0] == key])
        for key, item in value.items()
        if key not in gone
    }


def _explain(error: ErrorDetails) -> str:
    """One pydantic error as "path: what is wrong; what would be right"."""
    loc = [part for part in error["loc"] if part != "[key]"]
    place = ".".join(str(part) for part in loc)
    kind, context, value = error["type"], error.get("ctx", {}), error.get("input")
    if kind == "extra_forbidden":
        known = sorted(_known_keys(loc[:-1]))
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{place}: unknown key; {hint}"
    texts = {
        "missing": "is missing",
        "too_short": "is empty; it needs at least one entry",
        "int_type": f"must be a whole number, not {value!r}",
        "bool_type": f"must be true or false, not {value!r}",
        "float_parsing": f"must be a number, not {value!r}",
        "float_type": f"must be a number, not {value!r}",
        "list_type": f"must be a list such as [0, 1], not {value!r}",
        "dict_type": f"must be a mapping, not {value!r}",
        "model_type": f"must be a mapping, not {value!r}",
        "greater_than_equal": f"must be at least {context.get('ge')}, not {value!r}",
        "less_than_equal": f"must be at most {context.get('le')}, not {value!r}",
        "literal_error": f"must be one of {context.get('expected')}, not {value!r}",
        "value_error": str(context.get("error", "")),
    }
    return f"{place}: {texts.get(kind) or error['msg']}"


def _known_keys(loc: list[int | str]) -> Iterator[str]:
    """The keys that the schema knows at a place."""
    current: Any = schema.Document
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        else:  # dict[Name, X]: any name leads to X
            current = (typing.get_args(current) or (None,))[-1]
        current = next(
            (option for option in typing.get_args(current) if isinstance(option, type) and issubclass(option, BaseModel)),
            current,
        ) if typing.get_origin(current) is not dict else current  # fmt: skip
    if isinstance(current, type) and issubclass(current, BaseModel):
        yield from current.model_fields
