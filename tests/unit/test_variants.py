"""Variants of a model: which there are, where their files lie, when they may be compared, and how equal is equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import ConfigError
from model_store import variants, zoo
from model_store.compare import Tolerance, compare
from model_store.layout import Layout, combined, digests
from model_store.variants import arm_files, problems, variants_of


def test_every_model_knows_every_variant_and_why_it_has_not_one() -> None:
    for model in zoo.ALL_NAMES:
        assert tuple(info.name for info in variants_of(model)) == variants.NAMES
    for model in ("digits", "mlp", "encoder-small", "encoder", "resnet50"):
        assert [info.name for info in variants_of(model) if info.skipped] == []
    pair = {info.name: info.skipped for info in variants_of("pair") if info.skipped}
    assert pair == {"exporter": "it has no Keras definition, only functions of TensorFlow"}
    tokens = {info.name for info in variants_of("tokens") if info.skipped is None}
    assert tokens == {"savedmodel"}
    assert all("BYTES" in str(info.skipped) for info in variants_of("tokens") if info.name != "savedmodel")


def test_only_litert_is_for_the_stand_in_alone() -> None:
    assert [info.name for info in variants.VARIANTS if info.stand_in_only] == ["litert", "litert-int8"]
    assert [info.name for info in variants.VARIANTS if info.default] == ["torchscript", "savedmodel"]


def entry(**more: Any) -> dict[str, Any]:
    return {"skipped": None, "digest": "", "parity": None, "tolerance": {}, **more}


def test_an_arm_gets_the_folder_or_the_reason(tmp_path: Path) -> None:
    base = Layout(tmp_path, "digits")
    folder = variants.home(base) / "onnx"
    files = arm_files(tmp_path, "digits", "onnx")
    assert (files.kind, files.path, files.stand_in_only, files.digest) == ("torchserve", folder, False, "")
    assert files.skipped == "is not built; `abgate models build digits --variants` makes it"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"1")
    variants.write_entry(base, "onnx", entry(digest=combined(digests(folder, folder))))
    variants.write_entry(base, "exporter", entry(skipped="Keras cannot"))
    assert arm_files(tmp_path, "digits", "onnx").skipped is None
    assert arm_files(tmp_path, "digits", "exporter").skipped == "Keras cannot"
    variants.write_entry(base, "pt2", entry(made_from="of another training"))
    assert "made from other weights" in str(arm_files(tmp_path, "digits", "pt2").skipped)
    with pytest.raises(ConfigError, match="'tensorrt' is not one of torchscript, eager"):
        arm_files(tmp_path, "digits", "tensorrt")
    variants.manifest_path(base).write_text(json.dumps({"format": 0}))
    with pytest.raises(ConfigError, match="build the variants again"):
        arm_files(tmp_path, "digits", "onnx")


def test_a_variant_may_be_compared_only_while_its_proof_fits_its_files(tmp_path: Path) -> None:
    base = Layout(tmp_path, "digits")
    folder = variants.home(base) / "pt2"
    folder.mkdir(parents=True)
    (folder / "model.pt2").write_bytes(b"1")
    made = entry(digest=combined(digests(folder, folder)))
    variants.write_entry(base, "pt2", made)
    assert "parity was never proved" in problems(tmp_path, "digits", "pt2")[0]
    variants.write_entry(base, "pt2", made | {"parity": {"ok": False, "failures": ["too far"]}})
    assert problems(tmp_path, "digits", "pt2") == ["too far"]
    variants.write_entry(base, "pt2", made | {"parity": {"ok": True, "failures": []}})
    assert problems(tmp_path, "digits", "pt2") == []
    (folder / "model.pt2").write_bytes(b"2")
    assert "its files changed" in problems(tmp_path, "digits", "pt2")[0]
    assert problems(tmp_path, "digits", "eager") == [
        "digits: variant eager: is not built; `abgate models build digits --variants` makes it"
    ]


WANT = np.array([[3.0, 4.0], [0.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("got", "ok", "relative", "argmax"),
    [
        (WANT, True, 0.0, 1.0),
        (WANT + np.float32([[0.2, 0.0], [0.0, 0.0]]), True, 0.2 / 26**0.5, 1.0),
        (WANT + np.float32([[0.3, 0.0], [0.0, 0.0]]), False, 0.3 / 26**0.5, 1.0),  # too far
        (WANT[:, ::-1] * np.float32(1), False, 2.0 / 26**0.5, 0.0),
    ],
    ids=["same", "near", "far", "other class"],
)
def test_rounded_weights_are_equal_by_relative_error_and_argmax(
    got: np.ndarray, ok: bool, relative: float, argmax: float
) -> None:
    (found,) = compare({"y": got}, {"y": WANT}, Tolerance(0.0, 0.0, relative_error=0.05, argmax=0.9))
    assert found.ok is ok
    assert found.relative_error == pytest.approx(relative, abs=1e-6)
    assert found.argmax_agreement == argmax
    assert (found.worst is None) is ok


def test_one_other_answer_too_many_is_not_equal() -> None:
    got = WANT.copy()
    got[1] = [1.001, 1.0]
    (found,) = compare({"y": got}, {"y": WANT}, Tolerance(0.0, 0.0, relative_error=0.5, argmax=0.9))
    assert (found.ok, found.argmax_agreement) == (False, 0.5)
    assert str(Tolerance(0, 0, 0.05, 0.9)) == "a relative error of 0.05 and the same argmax in 90% of the rows"
