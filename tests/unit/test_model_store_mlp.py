import numpy as np

from model_store import mlp


def test_the_weights_are_seeded_and_keep_every_layer_s_outputs_at_unit_size() -> None:
    weights, again = mlp.weights(lambda step, share: None), mlp.weights(lambda step, share: None)
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    assert sum(array.nbytes for array in weights.values()) == 3 * (3072 * 3072 + 3072) * 4
    x = mlp.inputs()["x"]
    assert x.shape == (1000, 3072)
    y = x[:16]
    for layer in mlp.LAYERS:
        y = y @ weights[f"{layer}/kernel"] + weights[f"{layer}/bias"]
        assert y.dtype == np.float32
        last = layer == mlp.LAYERS[-1]
        # before a relu the variance is twice the mean square that comes out of it
        assert 0.8 < float(y.var()) / (1.0 if last else 2.0) < 1.25
        y = y if last else np.maximum(y, 0)
