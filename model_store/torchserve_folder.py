"""TorchServe's model folder: what stands beside the TorchScript file.

Here live the archive's manifest and its model-config.yaml; the handler is given, and the model file is made elsewhere.
"""

import json
import shutil
from pathlib import Path

MODEL_FILE = "model.pt"
# a model in plain Python, where PyTorch has no tensors for it
PYTHON_FILE = "model.py"
ARCHIVER = "0.12.0"

CONFIG = """\
# One worker and no batching, like TensorFlow Serving as shipped; `abgate up` gives both servers the same resources.
minWorkers: 1
maxWorkers: 1
batchSize: 1
# milliseconds; 0 would cap batches at two requests (TorchServe 0.12)
maxBatchDelay: 1
# seconds
responseTimeout: 120
handler:
  threads: 1
"""


def handler_files(handler: Path) -> tuple[Path, ...]:
    """The handler and the modules it brings: files called handler_*.py beside it."""
    return (handler, *sorted(handler.parent.glob("handler_*.py")))


def write(folder: Path, model: str, model_file: str, handler: Path, signature: Path, more: str = "") -> None:
    """Write MAR-INF/MANIFEST.json, the handler, model-config.yaml and signature.json into TorchServe's folder of a model.

    `more` is put behind the yaml, which ends within the handler's section.
    """
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": model,
            "serializedFile": model_file,
            "handler": "handler.py",
            "modelVersion": "1.0",
            "configFile": "model-config.yaml",
        },
        "archiverVersion": ARCHIVER,
        # a fixed date, so that equal models have equal digests
        "createdOn": "01/01/1980 00:00:00",
    }
    (folder / "MAR-INF").mkdir(parents=True, exist_ok=True)
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")
    (folder / "model-config.yaml").write_text(CONFIG + more)
    for source in handler_files(handler):
        shutil.copyfile(source, folder / ("handler.py" if source == handler else source.name))
    shutil.copyfile(signature, folder / "signature.json")
