"""A user's TorchServe archive: a .mar file (a plain zip) or a folder of the same layout, checked and unpacked.

Here live the checks an unknown archive needs before any of its files is written; what is inside its handler is the user's.
"""

import json
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from gateway.errors import ConfigError

MANIFEST = "MAR-INF/MANIFEST.json"


def unpack(given: Path, folder: Path, model: str, signature: Path) -> None:
    """Put the archive into `folder`, name its model `model`, and give it the signature file if it brings none.

    Raises ConfigError naming what TorchServe would miss.
    """
    if given.is_dir():
        _check_manifest(given, str(given))
        shutil.copytree(given, folder)
    elif zipfile.is_zipfile(given):
        folder.mkdir(parents=True)
        with zipfile.ZipFile(given) as file:
            _check_members(file, given)
            file.extractall(folder)
        _check_manifest(folder, str(given))
    else:
        raise ConfigError([f"{given}: is neither a .mar file (a zip) nor a folder"])
    _rename(folder / MANIFEST, model)
    if not (folder / signature.name).exists():
        shutil.copyfile(signature, folder / signature.name)


def _check_members(file: zipfile.ZipFile, given: Path) -> None:
    for name in file.namelist():
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise ConfigError([f"{given}: its member {name!r} would be written outside the model's folder"])


def _check_manifest(folder: Path, source: str) -> None:
    model = _read(folder / MANIFEST, source)["model"]
    problems = []
    if not model.get("handler"):
        problems.append(f"{source}: {MANIFEST} names no handler")
    for key in ("handler", "serializedFile", "modelFile", "configFile"):
        name = str(model.get(key) or "")
        # a handler may be one of TorchServe's own, which is a name without a suffix, or "file:function"
        file = name.partition(":")[0]
        if file and "." in file and not (folder / file).is_file():
            problems.append(f"{source}: {MANIFEST} names {key} {name!r}, which is not in the archive")
    if problems:
        raise ConfigError(problems)


def _read(path: Path, source: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError([f"{source}: has no {MANIFEST}; make it with torch-model-archiver"]) from error
    except (OSError, ValueError) as error:
        raise ConfigError([f"{source}: {MANIFEST} cannot be read: {error}"]) from error
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise ConfigError([f"{source}: {MANIFEST} has no object 'model'"])
    return document


def _rename(path: Path, model: str) -> None:
    """TorchServe registers a folder under its manifest's model name: it must be the name the pair was added by."""
    document = json.loads(path.read_text())
    document["model"]["modelName"] = model
    path.write_text(json.dumps(document, indent=2) + "\n")
