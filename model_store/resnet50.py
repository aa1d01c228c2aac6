"""resnet50: the residual network of He et al. 2015 with 25.6 million weights (v1: a block's first convolution has the stride).

Here live its seeded weights and inputs, Keras's own definition and how a hand-written PyTorch twin (resnet50_twin) is filled.
Keras is imported only by `weights` and `keras_model`, torch only by `torch_twin`. Nothing was learnt, so there are no labels;
the output is logits. The batch normalisation is calibrated on a batch: with fresh weights every input gives nearly the same
answer, and equality would prove nothing.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.protocol.signature_file import Signature, TensorSpec
from model_store.compare import Tolerance

NAME = "resnet50"
SIDE = 224
CLASSES = 1000
SIGNATURE = Signature(
    NAME,
    "serving_default",
    (TensorSpec("pixels", "FP32", (-1, SIDE, SIDE, 3)),),
    (TensorSpec("output_0", "FP32", (-1, CLASSES)),),
)
# sums over 50 layers in another order: seen to differ by 6e-5 on logits up to 4.4
TOLERANCE = Tolerance(rtol=1e-3, atol=1e-3)
REQUIRES: tuple[str, ...] = ()
TWIN = Path(__file__).with_name("resnet50_twin.py")
SEED = 50
ROWS = 1000


def inputs() -> dict[str, NDArray[Any]]:
    """1,000 images `pixels` FP32 [n,224,224,3] in 0..1: seeded noise in patches of 16 x 16, with 256 levels like a camera's."""
    patches = np.random.default_rng(SEED + 1).integers(0, 256, (ROWS, SIDE // 16, SIDE // 16, 3), np.uint8)
    return {"pixels": patches.repeat(16, axis=1).repeat(16, axis=2).astype(np.float32) / np.float32(255)}


def weights(progress: Callable[[str, float], None]) -> dict[str, NDArray[np.float32]]:
    """Seeded weights in Keras's layouts, one array per `<layer>/<variable>`; statistics of 32 inputs in the normalisations."""
    import keras
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(SEED)
    network = _network()
    progress("calibrating the batch normalisation", 0.3)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # what this one batch shows is what is kept
    network(inputs()["pixels"][:32], training=True)
    return {f"{layer.name}/{v.name}": np.asarray(v.numpy()) for layer in network.layers for v in layer.weights}


def keras_model(arrays: Mapping[str, NDArray[np.float32]]) -> Any:
    """Keras's definition, filled with the weights."""
    network = _network()
    for layer in network.layers:
        layer.set_weights([arrays[f"{layer.name}/{v.name}"] for v in layer.weights])
    return network


def _network() -> Any:
    import keras

    pixels = keras.Input((SIDE, SIDE, 3), name="pixels")
    return keras.applications.ResNet50(
        weights=None, input_tensor=pixels, classes=CLASSES, classifier_activation=None, name=NAME
    )


def torch_twin(arrays: Mapping[str, NDArray[np.float32]]) -> Any:
    """The same network in PyTorch: NHWC at the door, NCHW inside, the weights transposed once, here."""
    from model_store import resnet50_twin
    from model_store.twins import fill

    state = {"predictions.weight": arrays["predictions/kernel"].T, "predictions.bias": arrays["predictions/bias"]}
    for c in resnet50_twin.convolutions():
        conv, norm, unit = f"{c.name}_conv", f"{c.name}_bn", f"units.{c.name}"
        state[f"{unit}.0.weight"] = arrays[f"{conv}/kernel"].transpose(3, 2, 0, 1)  # H W in out -> out in H W
        state[f"{unit}.0.bias"] = arrays[f"{conv}/bias"]
        state[f"{unit}.1.weight"] = arrays[f"{norm}/gamma"]
        state[f"{unit}.1.bias"] = arrays[f"{norm}/beta"]
        state[f"{unit}.1.running_mean"] = arrays[f"{norm}/moving_mean"]
        state[f"{unit}.1.running_var"] = arrays[f"{norm}/moving_variance"]
        state[f"{unit}.1.num_batches_tracked"] = np.zeros((), np.int64)
    return fill(resnet50_twin.module(), state)
