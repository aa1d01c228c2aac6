"""build.json: what a model's artefacts were made of, and how each of them is run.

Written by `build` and `add`, read by both and by `parity`. Here live its dataclasses and the file; nothing decides here.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.errors import ConfigError
from model_store.compare import Tolerance

FORMAT = 1
Kind = Literal[
    "savedmodel",
    "torchscript",
    "python",
    "torchserve-variant",
    "litert",
    "torchserve-folder",
    "tensorflow-server",
    "torchserve-server",
]


@dataclass(frozen=True, slots=True)
class Stage:
    """One finished step of a build: what it was made from (key), what it made (path -> sha256), and with what versions."""

    key: str
    files: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One artefact and how it is run.

    path is relative to the model's folder; address is `host:port` of a server already running, which calls the model `served_as`.
    """

    name: str
    kind: Kind
    export_path: str
    path: str = ""
    address: str = ""
    served_as: str = ""


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """Everything build.json holds; `reference` says in words whose answers are the right ones."""

    model: str
    artifacts: tuple[Artifact, ...]
    tolerance: Tolerance
    reference: str
    stages: dict[str, Stage] = field(default_factory=dict)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON under a temporary name and rename it, so that a reader sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, indent=2) + "\n")
    os.replace(part, path)


def save(path: Path, record: BuildRecord) -> None:
    """Write build.json."""
    write_json(path, {"format": FORMAT, **asdict(record)})


def load(path: Path) -> BuildRecord:
    """Read build.json; raises ConfigError when it is missing or is not one of ours."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise ConfigError([f"{path}: format {document['format']!r} is not {FORMAT}; build the model again"])
        return BuildRecord(
            model=document["model"],
            artifacts=tuple(Artifact(**item) for item in document["artifacts"]),
            tolerance=Tolerance(**document["tolerance"]),
            reference=document["reference"],
            stages={name: Stage(**item) for name, item in document["stages"].items()},
        )
    except FileNotFoundError as error:
        raise ConfigError([f"{path}: there is no such file; build the model with `abgate models build`"]) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path}: cannot be read ({error}); build the model again"]) from error
