"""digits: a small convolutional network on handwritten digits of 8x8 pixels.

Here live the data, the training, the Keras 3 definition and how its native PyTorch twin (digits_twin) is filled from the same
weights.
Keras is imported only by `weights` and `keras_model`, torch only by `torch_twin`: the two never share a process.
The output is logits, not probabilities: a softmax would flatten the differences that parity looks for.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.protocol.signature_file import Signature, TensorSpec
from model_store.compare import Tolerance

NAME = "digits"
SIGNATURE = Signature(
    NAME,
    "serving_default",
    (TensorSpec("pixels", "FP32", (-1, 8, 8, 1)),),
    (TensorSpec("output_0", "FP32", (-1, 10)),),
)
# ten times the largest difference seen (1e-5, on logits up to about 30)
TOLERANCE = Tolerance(rtol=1e-4, atol=1e-4)
REQUIRES = ("scikit-learn",)
TWIN = Path(__file__).with_name("digits_twin.py")
SEED = 20
TEST_ROWS = 450
EPOCHS = 20


def inputs() -> dict[str, NDArray[Any]]:
    """All 1,797 digits of scikit-learn: `pixels` FP32 [n,8,8,1] in 0..1, `label` INT64 [n], `split` INT8 [n] (1 = test)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    split = np.zeros(len(data.target), np.int8)
    split[np.random.default_rng(SEED).permutation(len(split))[:TEST_ROWS]] = 1
    pixels = (data.images / 16.0).astype(np.float32)[..., np.newaxis]
    return {"pixels": pixels, "label": data.target.astype(np.int64), "split": split}


def weights(progress: Callable[[str, float], None]) -> dict[str, NDArray[np.float32]]:
    """Train on the training split with fixed seeds; gives one array per `<layer>/<variable>`, in Keras's layouts."""
    import keras
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(SEED)
    data = inputs()
    train = data["split"] == 0
    model = _network()
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * 22)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress(
            f"training, epoch {epoch + 1} of {EPOCHS}, loss {logs['loss']:.4f}", (epoch + 1) / EPOCHS
        )
    )
    model.fit(data["pixels"][train], data["label"][train], 64, EPOCHS, verbose=0, callbacks=[tell])
    return {f"{layer.name}/{v.name}": np.asarray(v.numpy()) for layer in model.layers for v in layer.weights}


def keras_model(arrays: Mapping[str, NDArray[np.float32]]) -> Any:
    """The Keras 3 definition, filled with the weights."""
    model = _network()
    for layer in model.layers:
        layer.set_weights([arrays[f"{layer.name}/{v.name}"] for v in layer.weights])
    return model


def _network() -> Any:
    import keras
    from keras import layers

    pixels = keras.Input((8, 8, 1), name="pixels")
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1")(pixels)
    x = layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    return keras.Model(pixels, layers.Dense(10, name="logits")(x), name=NAME)


def torch_twin(arrays: Mapping[str, NDArray[np.float32]]) -> Any:
    """The same network as PyTorch writes it: NHWC at the door, NCHW inside, the weights transposed once, here."""
    from model_store import digits_twin
    from model_store.twins import fill

    def convolution(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
        return kernel.transpose(3, 2, 0, 1)  # H W in out -> out in H W

    # Keras flattens H W C, PyTorch C H W: the rows of the first dense layer change places
    hidden = arrays["hidden/kernel"].reshape(4, 4, 64, 64).transpose(3, 2, 0, 1).reshape(64, 1024)
    state = {
        "conv1.weight": convolution(arrays["conv1/kernel"]),
        "conv2.weight": convolution(arrays["conv2/kernel"]),
        "hidden.weight": hidden,
        "logits.weight": arrays["logits/kernel"].T,
        **{f"{layer}.bias": arrays[f"{layer}/bias"] for layer in ("conv1", "conv2", "hidden", "logits")},
    }
    return fill(digits_twin.module(), state)
