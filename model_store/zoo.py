"""The models of this repository, by name.

Here live the list and what a model's module must offer; each model lives in its own module. Imports no framework.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway.protocol.signature_file import Signature
from model_store.compare import Tolerance

_MODULES = {"digits": "model_store.digits", "mlp": "model_store.mlp"}
NAMES = tuple(_MODULES)


class Model(Protocol):
    """What one model's module offers; `weights` and `keras_model` run where Keras is, `torch_twin` where torch is."""

    NAME: str
    SIGNATURE: Signature
    TOLERANCE: Tolerance
    REQUIRES: tuple[str, ...]

    def inputs(self) -> dict[str, NDArray[Any]]: ...

    def weights(self, progress: Callable[[str, float], None]) -> dict[str, NDArray[Any]]: ...

    def keras_model(self, arrays: Mapping[str, NDArray[Any]]) -> Any: ...

    def torch_twin(self, arrays: Mapping[str, NDArray[Any]]) -> Any: ...


def model(name: str) -> Model:
    """The module of one of NAMES; raises ConfigError for any other name."""
    if name not in _MODULES:
        raise ConfigError([f"models: {name!r} is not a model of this repository; it has {', '.join(NAMES)}"])
    return cast(Model, importlib.import_module(_MODULES[name]))


def source(name: str) -> Path:
    """The file a model is written in."""
    return Path(str(importlib.import_module(_MODULES[name]).__file__))
