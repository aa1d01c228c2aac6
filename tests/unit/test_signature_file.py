import json
from pathlib import Path
from typing import Any

import pytest

from gateway.protocol.signature_file import Signature, SignatureError, TensorSpec, dumps, from_dict, load

DIGITS = Signature(
    "digits",
    "serving_default",
    (TensorSpec("pixels", "FP32", (-1, 8, 8, 1)),),
    (TensorSpec("output_0", "FP32", (-1, 10)),),
)
DOCUMENT: dict[str, Any] = {
    "format": 1,
    "model": "digits",
    "signature_name": "serving_default",
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 8, 8, 1]}],
    "outputs": [{"name": "output_0", "datatype": "FP32", "shape": [-1, 10]}],
}


def test_a_document_becomes_a_signature() -> None:
    assert from_dict(DOCUMENT) == DIGITS


def test_the_bytes_written_are_the_document_and_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "signature.json"
    path.write_bytes(dumps(DIGITS))
    assert json.loads(path.read_bytes()) == DOCUMENT
    assert load(path) == DIGITS


def test_the_signature_name_may_be_left_out() -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != "signature_name"}
    assert from_dict(document).signature_name == "serving_default"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format must be 1, not 2"),
        ({"format": True}, "format must be 1, not True"),
        ({"model": ""}, "model must be a text that is not empty"),
        ({"signature_name": 3}, "signature_name must be a text"),
        ({"inputs": []}, "inputs must be a list of at least one tensor"),
        ({"outputs": None}, "outputs must be a list of at least one tensor"),
        ({"inputs": ["pixels"]}, "inputs[0] must be an object"),
        ({"inputs": [{"name": "a", "datatype": "float32", "shape": []}]}, "inputs[0].datatype 'float32' is not one of"),
        ({"inputs": [{"name": "a", "datatype": ["FP32"], "shape": []}]}, "inputs[0].datatype ['FP32'] is not one of"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "shape": [-2]}]}, "inputs[0].shape [-2]: -2 is not a whole"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "shape": [True]}]}, "True is not a whole number"),
        ({"inputs": [{"name": "a", "datatype": "FP32", "shape": 3}]}, "inputs[0].shape must be a list"),
        ({"inputs": [*DOCUMENT["inputs"], *DOCUMENT["inputs"]]}, "inputs[1].name 'pixels' is there twice"),
        ({"input": []}, "unknown key 'input'"),
        ({"inputs": [{**DOCUMENT["inputs"][0], "dtype": 1}]}, "inputs[0]: unknown key 'dtype'"),
    ],
)
def test_a_fault_is_named_with_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SignatureError) as caught:
        from_dict({**DOCUMENT, **change}, source="s.json")
    assert str(caught.value).startswith("s.json: ")
    assert said in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(SignatureError) as caught:
        from_dict({"format": 9, "inputs": [{"name": "", "datatype": "?", "shape": [None]}], "outputs": 1})
    assert len(caught.value.problems) == 6


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_only_an_object_is_a_signature(document: Any) -> None:
    with pytest.raises(SignatureError, match="must be a JSON object"):
        from_dict(document)


@pytest.mark.parametrize(
    ("content", "said"), [(b"{", "is not JSON"), (b"\xff", "is not UTF-8"), (None, "cannot be read")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "signature.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SignatureError, match=said) as caught:
        load(path)
    assert caught.value.source == str(path)
