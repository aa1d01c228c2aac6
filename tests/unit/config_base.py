"""A small abgate.yaml that is right, and a way to change it: what tests of the configuration begin with."""

from pathlib import Path
from typing import Any

import yaml

from gateway.config import Config, parse

BASE = """
backends:
  ts: {kind: torchserve, http: 127.0.0.1:8085, grpc: 127.0.0.1:7070, management: 127.0.0.1:8086, start: local}
  tf: {kind: tensorflow_serving, http: 127.0.0.1:8501, grpc: 127.0.0.1:8500}
models:
  digits:
    arms: {a: {backend: ts, weight: 50}, b: {backend: tf, weight: 50}}
    experiment: {id: e, salt: "7f3a", unit: {header: X-User-Id}}
"""


def read(changes: dict[str, Any] | None = None, text: str = BASE) -> Config:
    """The base configuration with values put at dotted places (a place with "-" at its end is removed)."""
    document = yaml.safe_load(text)
    for place, value in (changes or {}).items():
        *way, last = place.removesuffix("-").split(".")
        target = document
        for key in way:
            target = target.setdefault(key, {})
        if place.endswith("-"):
            del target[last]
        else:
            target[last] = value
    return parse(yaml.safe_dump(document, sort_keys=False), Path("/srv/abgate.yaml"))
