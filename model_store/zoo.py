"""The models of this repository, by name.

Here live the list and what a model's module must offer; each model lives in its own module. Imports no framework.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway.protocol.signature_file import Signature
from model_store.compare import Tolerance

_MODULES = {
    "digits": "model_store.digits",
    "mlp": "model_store.mlp",
    "pair": "model_store.pair",
    "tokens": "model_store.tokens",
    "encoder-small": "model_store.encoder:SMALL",
    "encoder": "model_store.encoder:BASE",
    "resnet50": "model_store.resnet50",
}
# made where nobody asks for others; the rest, small ones for tests and large ones that take minutes, are made by name
NAMES = ("digits", "mlp")
ALL_NAMES = tuple(_MODULES)


class Model(Protocol):
    """What every model offers, a module or an object in one; `weights` runs where TensorFlow is.

    Beside these it has its definition in TensorFlow, `keras_model(arrays)` -> a Keras model with one input and one output, or
    `tensorflow_function(arrays)` -> a function of the inputs, by position, that gives the outputs by name; and its twin for
    TorchServe: `torch_twin(arrays)` -> nn.Module with `TWIN`, the file of the bare module, and where it has sizes
    `TWIN_ARGUMENTS`; or `PYTHON_TWIN`, the file of a model in plain Python.
    """

    NAME: str
    SIGNATURE: Signature
    TOLERANCE: Tolerance
    REQUIRES: tuple[str, ...]

    def inputs(self) -> dict[str, NDArray[Any]]: ...

    def weights(self, progress: Callable[[str, float], None]) -> dict[str, NDArray[Any]]: ...


def model(name: str) -> Model:
    """The module of one of ALL_NAMES; raises ConfigError for any other name."""
    if name not in _MODULES:
        raise ConfigError([f"models: {name!r} is not a model of this repository; it has {', '.join(ALL_NAMES)}"])
    module, _, size = _MODULES[name].partition(":")
    found = importlib.import_module(module)
    return cast(Model, getattr(found, size) if size else found)


def source(name: str) -> Path:
    """The file a model is written in."""
    return Path(str(importlib.import_module(_MODULES[name].partition(":")[0]).__file__))
