"""mlp: three dense layers of 3,072, 113 MB of weights, so that memory and not arithmetic decides its speed.

A batch reads the weights once for all its rows: this is the model where batching shows. Here live its seeded weights and inputs,
the Keras 3 definition and how its native PyTorch twin (mlp_twin) is filled.
Keras is imported only by `keras_model`, torch only by `torch_twin`.
Nothing was learnt, so there are no labels: the answer of the Keras definition is the reference (`out:output_0`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.protocol.signature_file import Signature, TensorSpec
from model_store.compare import Tolerance

NAME = "mlp"
WIDTH = 3072
LAYERS = ("dense1", "dense2", "dense3")
SIGNATURE = Signature(
    NAME,
    "serving_default",
    (TensorSpec("x", "FP32", (-1, WIDTH)),),
    (TensorSpec("output_0", "FP32", (-1, WIDTH)),),
)
# outputs of unit size from float32 sums of 3,072 products; seen to differ by 4e-6
TOLERANCE = Tolerance(rtol=1e-4, atol=1e-4)
REQUIRES: tuple[str, ...] = ()
TWIN = Path(__file__).with_name("mlp_twin.py")
TWIN_ARGUMENTS = {"width": WIDTH}
SEED = 3072
ROWS = 1000


def inputs() -> dict[str, NDArray[Any]]:
    """1,000 rows `x` FP32 [n,3072], normal with mean 0 and deviation 1, seeded."""
    return {"x": np.random.default_rng(SEED + 1).standard_normal((ROWS, WIDTH), np.float32)}


def weights(progress: Callable[[str, float], None]) -> dict[str, NDArray[np.float32]]:
    """Seeded weights, one array per `<layer>/<variable>`, kernels [in, out].

    Scaled so that every layer's outputs keep a size of about 1: variance 2/n before a relu, which halves the mean square
    (He et al. 2015), and 1/n before the last layer's plain output.
    """
    rng = np.random.default_rng(SEED)
    arrays: dict[str, NDArray[np.float32]] = {}
    for index, layer in enumerate(LAYERS):
        gain = 1.0 if layer == LAYERS[-1] else 2.0
        arrays[f"{layer}/kernel"] = rng.standard_normal((WIDTH, WIDTH), np.float32) * np.float32((gain / WIDTH) ** 0.5)
        arrays[f"{layer}/bias"] = rng.standard_normal(WIDTH, np.float32) * np.float32(0.1)
        progress(f"weights of {layer}", (index + 1) / len(LAYERS))
    return arrays


def keras_model(arrays: Mapping[str, NDArray[np.float32]]) -> Any:
    """The Keras 3 definition, filled with the weights."""
    import keras
    from keras import layers

    x = keras.Input((WIDTH,), name="x")
    y = x
    for layer in LAYERS:
        relu = None if layer == LAYERS[-1] else "relu"
        # zeros: drawing 28 million numbers that the weights replace at once would cost a second
        y = layers.Dense(WIDTH, activation=relu, kernel_initializer="zeros", name=layer)(y)
    model = keras.Model(x, y, name=NAME)
    for layer in LAYERS:
        model.get_layer(layer).set_weights([arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"]])
    return model


def torch_twin(arrays: Mapping[str, NDArray[np.float32]]) -> Any:
    """The same network as PyTorch writes it; a Linear keeps its kernel as [out, in], so each is transposed once, here."""
    from model_store import mlp_twin
    from model_store.twins import fill

    state: dict[str, NDArray[np.float32]] = {}
    for layer in LAYERS:
        state[f"{layer}.weight"] = np.ascontiguousarray(arrays[f"{layer}/kernel"].T)
        state[f"{layer}.bias"] = arrays[f"{layer}/bias"]
    return fill(mlp_twin.module(**TWIN_ARGUMENTS), state)
