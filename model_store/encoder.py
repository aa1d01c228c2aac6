"""encoder: a text encoder shaped like BERT-Base (Devlin et al. 2018), 12 layers of 768, 109 million weights; and a small one.

Here live its seeded weights and inputs, the Keras 3 definition and how its native PyTorch twin (encoder_twin) is filled. Keras is
imported only by `keras_model`, torch only by `torch_twin`. Nothing was learnt, so there are no labels; the answer is the mean of
the last layer over the tokens that are not padding. Sequences may have any length up to `positions`; the lengths of the rows of
a batch differ through the mask.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.protocol.signature_file import Signature, TensorSpec
from model_store.compare import Tolerance

SEED = 768
ROWS = 1000
EPSILON = 1e-12
# float32 sums of up to 3,072 products through 12 layers that normalise to size 1; seen to differ by 6e-6
_TOLERANCE = Tolerance(rtol=1e-4, atol=1e-4)


@dataclass(frozen=True)
class Encoder:
    """One size of the encoder. length is that of the evaluation inputs, in tokens."""

    NAME: str
    layers: int
    width: int
    heads: int
    words: int
    positions: int
    length: int
    REQUIRES: tuple[str, ...] = ()
    TOLERANCE: Tolerance = _TOLERANCE

    @property
    def TWIN(self) -> Path:
        """The file of its PyTorch module."""
        return Path(__file__).with_name("encoder_twin.py")

    @property
    def TWIN_ARGUMENTS(self) -> dict[str, int]:
        """The size of its PyTorch module."""
        return {name: getattr(self, name) for name in ("layers", "width", "heads", "words", "positions")}

    @property
    def SIGNATURE(self) -> Signature:
        """ids and mask INT64 [n, length] -> output_0 FP32 [n, width]."""
        tensors = (TensorSpec("ids", "INT64", (-1, -1)), TensorSpec("mask", "INT64", (-1, -1)))
        return Signature(self.NAME, "serving_default", tensors, (TensorSpec("output_0", "FP32", (-1, self.width)),))

    def inputs(self) -> dict[str, NDArray[Any]]:
        """1,000 rows: `ids` INT64 [n, length], `mask` INT64 of ones and, behind a row's own length, zeros (ids 0 there)."""
        rng = np.random.default_rng(SEED + 1)
        own = rng.integers(2, self.length + 1, (ROWS, 1))
        mask = (np.arange(self.length) < own).astype(np.int64)
        return {"ids": rng.integers(1, self.words, (ROWS, self.length), np.int64) * mask, "mask": mask}

    def weights(self, progress: Callable[[str, float], None]) -> dict[str, NDArray[np.float32]]:
        """Seeded weights, one array per `<layer>/<variable>`, kernels [in, out].

        Larger than BERT's 0.02 where they make a difference: with it attention is even and every input answers alike.
        """
        rng = np.random.default_rng(SEED)
        arrays: dict[str, NDArray[np.float32]] = {}

        def normal(name: str, *shape: int, deviation: float) -> None:
            arrays[name] = rng.standard_normal(shape, np.float32) * np.float32(deviation)

        def norm(name: str) -> None:
            arrays[f"{name}/gamma"] = np.float32(1) + rng.standard_normal(self.width, np.float32) * np.float32(0.1)
            normal(f"{name}/beta", self.width, deviation=0.1)

        normal("words/embeddings", self.words, self.width, deviation=1.0)
        normal("positions/embeddings", self.positions, self.width, deviation=0.5)
        norm("embedded")
        for layer in range(self.layers):
            sizes = {
                "query": (self.width, self.width),
                "key": (self.width, self.width),
                "value": (self.width, self.width),
            }
            sizes |= {
                "mixed": (self.width, self.width),
                "up": (self.width, 4 * self.width),
                "down": (4 * self.width, self.width),
            }
            for part, (inner, outer) in sizes.items():
                normal(f"layer{layer}_{part}/kernel", inner, outer, deviation=inner**-0.5)
                normal(f"layer{layer}_{part}/bias", outer, deviation=0.1)
            norm(f"layer{layer}_attended")
            norm(f"layer{layer}_done")
            progress(f"weights of layer {layer + 1} of {self.layers}", (layer + 1) / self.layers)
        return arrays

    def keras_model(self, arrays: Mapping[str, NDArray[np.float32]]) -> Any:
        """The Keras 3 definition, filled with the weights."""
        import keras
        from keras import layers, ops

        class Positions(layers.Layer):  # type: ignore[misc]
            """Adds a row of its table to each token; how many there are is known only when a batch is here."""

            def __init__(self, count: int, width: int, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.embeddings = self.add_weight(shape=(count, width), initializer="zeros", name="embeddings")

            def call(self, x: Any) -> Any:
                return x + self.embeddings[: ops.shape(x)[1]]

        def norm(name: str) -> Any:
            return layers.LayerNormalization(epsilon=EPSILON, name=name)

        def dense(name: str, units: int, activation: Any = None) -> Any:
            return layers.Dense(units, activation, kernel_initializer="zeros", name=name)

        ids, mask = (keras.Input((None,), name=name, dtype="int64") for name in ("ids", "mask"))
        x = layers.Embedding(self.words, self.width, embeddings_initializer="zeros", name="words")(ids)
        x = norm("embedded")(Positions(self.positions, self.width, name="positions")(x))
        for layer in range(self.layers):
            name = f"layer{layer}"
            attention = layers.MultiHeadAttention(self.heads, self.width // self.heads, name=f"{name}_attention")
            x = norm(f"{name}_attended")(x + attention(x, x, attention_mask=mask[:, None, :]))
            y = dense(f"{name}_up", 4 * self.width, lambda v: ops.gelu(v, approximate=False))(x)
            x = norm(f"{name}_done")(x + dense(f"{name}_down", self.width)(y))
        kept = ops.cast(mask, "float32")[..., None]
        network = keras.Model([ids, mask], ops.sum(x * kept, 1) / ops.sum(kept, 1), name=self.NAME)
        for layer in network.layers:
            if isinstance(layer, layers.MultiHeadAttention):
                layer.set_weights(self._attention(arrays, layer.name.removesuffix("_attention")))
            elif layer.weights:
                layer.set_weights([arrays[f"{layer.name}/{v.name}"] for v in layer.weights])
        return network

    def _attention(self, arrays: Mapping[str, NDArray[np.float32]], layer: str) -> list[NDArray[np.float32]]:
        """Keras's order and shapes: the heads are a dimension of their own there."""
        size = self.width // self.heads
        found: list[NDArray[np.float32]] = []
        for part in ("query", "key", "value"):
            found.append(arrays[f"{layer}_{part}/kernel"].reshape(self.width, self.heads, size))
            found.append(arrays[f"{layer}_{part}/bias"].reshape(self.heads, size))
        found.append(arrays[f"{layer}_mixed/kernel"].reshape(self.heads, size, self.width))
        return [*found, arrays[f"{layer}_mixed/bias"]]

    def torch_twin(self, arrays: Mapping[str, NDArray[np.float32]]) -> Any:
        """The same network as PyTorch writes it; a Linear keeps its kernel as [out, in], so each is transposed once, here."""
        from model_store import encoder_twin
        from model_store.twins import fill

        names = {"gamma": "weight", "beta": "bias", "kernel": "weight", "bias": "bias", "embeddings": "weight"}
        state: dict[str, NDArray[np.float32]] = {}
        for name, array in arrays.items():
            place, variable = name.split("/")
            if place.startswith("layer"):
                layer, part = place.split("_")
                place = f"layers.{layer.removeprefix('layer')}.{part}"
            key = "positions" if place == "positions" else f"{place}.{names[variable]}"
            state[key] = np.ascontiguousarray(array.T) if variable == "kernel" else array
        return fill(encoder_twin.module(**self.TWIN_ARGUMENTS), state)


BASE = Encoder("encoder", layers=12, width=768, heads=12, words=30_522, positions=512, length=64)
SMALL = Encoder("encoder-small", layers=2, width=128, heads=4, words=1000, positions=128, length=32)
