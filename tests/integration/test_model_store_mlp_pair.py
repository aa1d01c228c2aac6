"""The mlp's artefacts are the same model. `make test` has built them; they are built here where they are missing or old."""

import json
import os
import shutil
from pathlib import Path

from model_store.build import build
from model_store.layout import Layout
from model_store.parity import verify

REPOSITORY = Path(__file__).parents[2]


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def test_the_mlp_s_artefacts_give_the_reference_s_answers(tmp_path: Path) -> None:
    at_hand = REPOSITORY / "model_store" / "artifacts" / "mlp"
    if at_hand.is_dir():
        shutil.copytree(at_hand, tmp_path / "mlp", copy_function=link_or_copy)
    build(["mlp"], tmp_path, REPOSITORY / "backends" / "torchserve" / "handler.py")
    layout = Layout(tmp_path, "mlp")
    layout.manifest.unlink(missing_ok=True)
    (result,) = verify(["mlp"], tmp_path)
    assert result.failures == ()
    assert (result.rows, result.warnings) == (1000, ())
    artifacts = json.loads(layout.manifest.read_text())["artifacts"]
    assert set(artifacts) == {"savedmodel", "torchserve"}
    for item in artifacts.values():
        assert item["argmax_agreement"] == 1.0
        assert item["accuracy"] is None
    # both sides hold the weights once: 3 kernels of 3,072 x 3,072 float32
    weights = 3 * (3072 * 3072 + 3072) * 4
    for path in (layout.savedmodel / "1", layout.torchserve / "model.pt"):
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        assert weights <= sum(file.stat().st_size for file in files) < 1.01 * weights
