import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from model_store import archive

MODEL = {"modelName": "theirs", "handler": "handler.py", "serializedFile": "model.pt", "modelVersion": "1.0"}


def make(folder: Path, model: Any = MODEL, files: tuple[str, ...] = ("handler.py", "model.pt")) -> Path:
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"runtime": "python", "model": model}))
    for name in files:
        (folder / name).write_text(name)
    return folder


def pack(folder: Path, mar: Path) -> Path:
    with zipfile.ZipFile(mar, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return mar


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_and_a_folder_become_the_same_folder(tmp_path: Path, packed: bool) -> None:
    given = make(tmp_path / "given")
    given = pack(given, tmp_path / "m.mar") if packed else given
    signature = tmp_path / "signature.json"
    signature.write_text("{}")
    archive.unpack(given, tmp_path / "out", "ours", signature)
    manifest = json.loads((tmp_path / "out" / "MAR-INF" / "MANIFEST.json").read_text())
    assert manifest["model"] == {**MODEL, "modelName": "ours"}
    assert (tmp_path / "out" / "handler.py").read_text() == "handler.py"
    assert (tmp_path / "out" / "signature.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({**MODEL, "serializedFile": "other.pt"}, "names serializedFile 'other.pt', which is not in the archive"),
        ({**MODEL, "handler": "gone.py:handle"}, "names handler 'gone.py:handle', which is not in the archive"),
        ({"modelName": "m"}, "names no handler"),
        ("m", "has no object 'model'"),
    ],
)
def test_what_torchserve_would_miss_is_named(tmp_path: Path, model: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        archive.unpack(make(tmp_path / "given", model), tmp_path / "out", "m", tmp_path / "s.json")
    assert said in str(caught.value)


def test_a_handler_of_torchserve_itself_needs_no_file(tmp_path: Path) -> None:
    given = make(tmp_path / "given", {**MODEL, "handler": "image_classifier"}, ("model.pt", "s.json"))
    archive.unpack(given, tmp_path / "out", "m", tmp_path / "s.json")
    assert (tmp_path / "out" / "model.pt").is_file()


def test_a_member_that_would_leave_the_folder_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as file:
        file.writestr("../escaped.py", "")
    with pytest.raises(ConfigError, match="outside the model's folder"):
        archive.unpack(tmp_path / "m.mar", tmp_path / "in" / "out", "m", tmp_path / "s.json")
    assert not (tmp_path / "in" / "escaped.py").exists()


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.mar").write_text("text")
    with pytest.raises(ConfigError, match=r"neither a \.mar file"):
        archive.unpack(tmp_path / "m.mar", tmp_path / "out", "m", tmp_path / "s.json")


def test_an_archive_without_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    with pytest.raises(ConfigError, match=r"has no MAR-INF/MANIFEST\.json"):
        archive.unpack(tmp_path / "given", tmp_path / "out", "m", tmp_path / "s.json")
