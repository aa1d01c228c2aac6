"""Native PyTorch twins: a file with the bare module, and the filling of it from a model's weights.

Here lives what all twins share. torch is imported only by `fill`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store import zoo


def fill(module: Any, state: Mapping[str, NDArray[Any]]) -> Any:
    """The module with these weights, by its own names of them, ready to answer; raises where one is missing or too many."""
    import torch

    module.load_state_dict({name: torch.from_numpy(np.array(value, order="C")) for name, value in state.items()})
    return module.eval()


def source(model: str) -> tuple[Path, dict[str, int]] | None:
    """The file whose `module(**arguments)` makes a model's twin, and the arguments; None for a twin in plain Python."""
    found: Any = zoo.model(model)
    path = getattr(found, "TWIN", None)
    return None if path is None else (path, dict(getattr(found, "TWIN_ARGUMENTS", {})))
