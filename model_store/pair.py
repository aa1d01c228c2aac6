"""pair: two inputs, two outputs, so that order and names of tensors show. A model for tests; nothing was learnt.

`sum` is a + gain * b; `scaled` is (a * b) @ kernel + bias. The gain makes the inputs unlike, and the outputs differ in
width: whoever mixes up names or order gives other numbers. TensorFlow is imported only by `tensorflow_function`,
torch only by `torch_twin`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.protocol.signature_file import Signature, TensorSpec
from model_store.compare import Tolerance

NAME = "pair"
SIGNATURE = Signature(
    NAME,
    "serving_default",
    (TensorSpec("a", "FP32", (-1, 4)), TensorSpec("b", "FP32", (-1, 4))),
    (TensorSpec("sum", "FP32", (-1, 4)), TensorSpec("scaled", "FP32", (-1, 2))),
)
# four products a sum: seen to differ in the last digit
TOLERANCE = Tolerance(rtol=1e-5, atol=1e-5)
REQUIRES: tuple[str, ...] = ()
TWIN = Path(__file__).with_name("pair_twin.py")
SEED = 44
ROWS = 1000


def inputs() -> dict[str, NDArray[Any]]:
    """1,000 rows of `a` and `b` FP32 [n,4]; a is around 0, b around 10, so that a swap of the two shows."""
    rng = np.random.default_rng(SEED)
    return {
        "a": rng.standard_normal((ROWS, 4), np.float32),
        "b": rng.standard_normal((ROWS, 4), np.float32) + np.float32(10),
    }


def weights(progress: Callable[[str, float], None]) -> dict[str, NDArray[np.float32]]:
    """Seeded weights: `gain` [4] of b in the first output's sum, `kernel` [4,2] and `bias` [2] of the second output."""
    rng = np.random.default_rng(SEED + 1)
    progress("weights", 1.0)
    return {
        "gain": np.array([1, 2, 3, 4], np.float32),
        "kernel": rng.standard_normal((4, 2), np.float32),
        "bias": rng.standard_normal(2, np.float32),
    }


def tensorflow_function(arrays: Mapping[str, NDArray[np.float32]]) -> Callable[..., dict[str, Any]]:
    """The definition in TensorFlow: takes a and b, gives the outputs by name."""
    import tensorflow as tf

    # numpy arrays, which become constants of the graph where they are used
    gain, kernel, bias = (arrays[name] for name in ("gain", "kernel", "bias"))
    return lambda a, b: {"sum": a + gain * b, "scaled": tf.matmul(a * b, kernel) + bias}


def torch_twin(arrays: Mapping[str, NDArray[np.float32]]) -> Any:
    """The same as PyTorch writes it; gives the outputs in the signature's order."""
    from model_store import pair_twin
    from model_store.twins import fill

    state = {"scaled.weight": arrays["kernel"].T, "scaled.bias": arrays["bias"], "gain": arrays["gain"]}
    return fill(pair_twin.module(), state)
