"""What runs in the TensorFlow process for a variant: compile or convert the SavedModel, and run a LiteRT file.

Run as `python -m model_store.variants_tensorflow ACTION JSON`. `predict` imports LiteRT only, the others TensorFlow; Keras
and torch never are: what is converted is the default SavedModel.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from gateway.protocol import signature_file
from model_store import arrays, child, tensorflow_process, zoo

LITERT_FILE = "model.tflite"


def xla(model: str, savedmodel: str, inputs: str, version: str, batch_sizes: list[int]) -> dict[str, Any]:
    """Wrap the SavedModel's signature in a function that XLA compiles; warm-up requests of every batch size beside it."""
    child.tell("importing TensorFlow", 0.0)
    import tensorflow as tf

    signature = zoo.model(model).SIGNATURE
    loaded = tf.saved_model.load(savedmodel)
    plain = loaded.signatures[signature.signature_name]
    names = [spec.name for spec in signature.inputs]

    def by_name(*tensors: Any) -> Any:
        return plain(**dict(zip(names, tensors, strict=True)))

    compiled = tf.function(by_name, jit_compile=True, autograph=False)

    def served(*tensors: Any) -> Any:
        return compiled(*tensors)

    child.tell("tracing the compiled signature", 0.4)
    module = tf.Module()
    module.loaded = loaded  # its variables are the module's
    function = tf.function(served, input_signature=tensorflow_process._tensor_specs(signature), autograph=False)
    tf.saved_model.save(module, version, signatures={signature.signature_name: function})
    rows = arrays.load(Path(inputs))
    _write_warmup(Path(version), model, [{name: rows[name][:size] for name in names} for size in batch_sizes])
    how = f"tf.function(jit_compile=True) (TensorFlow {tf.__version__}) -> tf.saved_model.save"
    return {"export_path": f"SavedModel of the Keras definition -> {how}", "tensorflow": tf.__version__}


def _write_warmup(version: Path, model: str, requests: list[dict[str, Any]]) -> None:
    """The requests TensorFlow Serving replays before a version is AVAILABLE, one of each batch size."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    folder = version / "assets.extra"
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "tf_serving_warmup_requests")) as writer:
        for inputs in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = model
            request.model_spec.signature_name = signature_file.DEFAULT_SIGNATURE_NAME
            for name, array in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def litert(model: str, savedmodel: str, version: str, int8: bool) -> dict[str, Any]:
    """Convert the SavedModel to a LiteRT file; with int8 the weights become 8 bits (dynamic range)."""
    child.tell("importing TensorFlow", 0.0)
    import tensorflow as tf

    signature = zoo.model(model).SIGNATURE
    converter = tf.lite.TFLiteConverter.from_saved_model(savedmodel, signature_keys=[signature.signature_name])
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    child.tell("converting", 0.3)
    try:
        content = converter.convert()
    except Exception as error:  # whatever the converter stumbles over: it is not ours
        text = str(error).strip().splitlines() or [repr(error)]
        return {"skipped": f"TensorFlow {tf.__version__}'s LiteRT converter cannot convert it: {text[0][:300]}"}
    folder = Path(version)
    folder.mkdir(parents=True)
    (folder / LITERT_FILE).write_bytes(content)
    how = f"tf.lite.TFLiteConverter (TensorFlow {tf.__version__}{', dynamic range int8' if int8 else ''})"
    return {"export_path": f"SavedModel of the Keras definition -> {how}", "tensorflow": tf.__version__}


def predict(version: str, signature: str, inputs: str, output: str) -> dict[str, Any]:
    """Run the inputs through a LiteRT file on one thread."""
    child.tell("importing LiteRT", 0.0)
    from importlib import metadata

    from ai_edge_litert.interpreter import Interpreter

    spec = signature_file.load(Path(signature))
    feed = arrays.load(Path(inputs))
    rows = len(next(iter(feed.values())))
    interpreter = Interpreter(model_path=os.path.join(version, LITERT_FILE), num_threads=1)
    run = interpreter.get_signature_runner(spec.signature_name)
    step = arrays.rows_at_once(feed)
    answers: dict[str, list[Any]] = {tensor.name: [] for tensor in spec.outputs}
    for start in [0, *range(1, rows, step)]:
        end = 1 if start == 0 else start + step
        result = run(**{tensor.name: feed[tensor.name][start:end] for tensor in spec.inputs})
        for name, parts in answers.items():
            parts.append(np.array(result[name]))
        child.tell(f"LiteRT: {min(end, rows)} of {rows} inputs", 0.1 + 0.9 * start / rows)
    arrays.save(Path(output), {name: np.concatenate(parts) for name, parts in answers.items()})
    return {"ai-edge-litert": metadata.version("ai-edge-litert")}


if __name__ == "__main__":
    child.main({"xla": xla, "litert": litert, "predict": predict})
