from typing import Any

import pytest

from gateway.protocol.signature_file import Signature, TensorSpec
from model_store.served_signature import from_metadata, from_signature_defs


def info(dtype: str, *sizes: str, unknown_rank: bool = False) -> dict[str, Any]:
    shape = {"dim": [{"size": size, "name": ""} for size in sizes], "unknown_rank": unknown_rank}
    return {"dtype": dtype, "tensor_shape": shape, "name": "graph:0"}


SERVED = {
    "serving_default": {
        "inputs": {"ids": info("DT_INT64", "-1", "128"), "text": info("DT_STRING", "-1")},
        "outputs": {"scores": info("DT_HALF", "-1", "3")},
        "method_name": "tensorflow/serving/predict",
    },
    "__saved_model_init_op": {"inputs": {}, "outputs": {"__saved_model_init_op": info("DT_INVALID")}},
}


def test_metadata_as_tensorflow_serving_answers_it() -> None:
    document = {
        "model_spec": {"name": "m", "signature_name": "", "version": "1"},
        "metadata": {
            "signature_def": {
                "@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap",
                "signature_def": SERVED,
            }
        },
    }
    assert from_metadata(document, "m", "serving_default") == Signature(
        "m",
        "serving_default",
        (TensorSpec("ids", "INT64", (-1, 128)), TensorSpec("text", "BYTES", (-1,))),
        (TensorSpec("scores", "FP16", (-1, 3)),),
    )


def test_a_scalar_has_the_empty_shape() -> None:
    # protobuf's JSON leaves empty messages out
    found = {"s": {"inputs": {"x": {"dtype": "DT_FLOAT"}}, "outputs": {"y": {"dtype": "DT_BOOL", "tensor_shape": {}}}}}
    assert from_signature_defs(found, "m", "s").inputs == (TensorSpec("x", "FP32", ()),)


@pytest.mark.parametrize(
    ("found", "name", "said"),
    [
        (SERVED, "nope", "has no signature 'nope'; it has: serving_default"),
        ({}, "s", "it has: none"),
        ({"s": {"outputs": {"y": info("DT_FLOAT", "-1")}}}, "s", "needs at least one input and one output"),
        ({"s": {"inputs": {"x": info("DT_VARIANT", "-1")}}}, "s", "input 'x' has type DT_VARIANT"),
        ({"s": {"inputs": {"x": info("DT_FLOAT", unknown_rank=True)}}}, "s", "input 'x' has no fixed rank"),
    ],
)
def test_what_cannot_be_served_is_named(found: dict[str, Any], name: str, said: str) -> None:
    with pytest.raises(ValueError, match="signature") as caught:
        from_signature_defs(found, "m", name)
    assert said in str(caught.value)


@pytest.mark.parametrize("document", [{}, {"metadata": []}, {"metadata": {"signature_def": {}}}])
def test_an_answer_without_signatures_is_named(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no metadata"):
        from_metadata(document, "m", "serving_default")
