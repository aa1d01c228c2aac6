"""What runs in the PyTorch process: make the frozen TorchScript of a twin, run a TorchScript file.

Run as `python -m model_store.torch_process ACTION JSON`. torch is imported in this process only, Keras and TensorFlow never are.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.protocol import signature_file
from model_store import arrays, child, zoo

ROWS_AT_ONCE = 256


def build(model: str, weights: str, inputs: str, output: str) -> dict[str, Any]:
    """Fill the twin from the weights file, trace it on two rows, freeze it and save it as TorchScript."""
    child.tell("importing PyTorch", 0.0)
    import torch

    module = zoo.model(model)
    twin = module.torch_twin(arrays.load(Path(weights)))
    rows = arrays.load(Path(inputs))
    example = tuple(torch.from_numpy(rows[spec.name][:2].copy()) for spec in module.SIGNATURE.inputs)
    child.tell("tracing and freezing", 0.5)
    with torch.no_grad():
        traced = torch.jit.trace(twin, example)  # type: ignore[no-untyped-call]
    # frozen: weights become constants, so that the comparison measures the server and not how the module was saved
    torch.jit.save(torch.jit.freeze(traced.eval()), output)
    return {"torch": torch.__version__}


def predict(script: str, signature: str, inputs: str, output: str) -> dict[str, Any]:
    """Run the inputs through a TorchScript file; its arguments and results stand in the signature's order."""
    child.tell("importing PyTorch", 0.0)
    import torch

    spec = signature_file.load(Path(signature))
    feed = arrays.load(Path(inputs))
    rows = len(next(iter(feed.values())))
    module = torch.jit.load(script)  # type: ignore[no-untyped-call]
    answers: dict[str, list[NDArray[Any]]] = {tensor.name: [] for tensor in spec.outputs}
    with torch.inference_mode():
        for start in range(0, rows, ROWS_AT_ONCE):
            part = [torch.from_numpy(feed[tensor.name][start : start + ROWS_AT_ONCE]) for tensor in spec.inputs]
            result = module(*part)
            values = result if isinstance(result, (tuple, list)) else (result,)
            for name, value in zip(answers, values, strict=True):
                answers[name].append(value.numpy())
            child.tell(f"TorchScript: {min(start + ROWS_AT_ONCE, rows)} of {rows} inputs", (start + 1) / rows)
    arrays.save(Path(output), {name: np.concatenate(parts) for name, parts in answers.items()})
    return {"torch": torch.__version__}


if __name__ == "__main__":
    child.main({"build": build, "predict": predict})
