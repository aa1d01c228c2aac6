"""How long a TorchScript model's own forward takes, in a process of its own: `python -m loadtest.claims.forward FOLDER INPUTS`.

Torch is imported here and nowhere else in loadtest, and only in that process. The forward is run as TorchServe's worker runs it:
one row, one thread, inference mode. Prints one JSON object: {"median_ms", "mean_ms", "n"}.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WARM_S, MEASURE_S = 1.0, 2.0
ROWS, LIMIT_S = 64, 180


def measure(folder: Path, inputs: Path) -> dict[str, float]:
    """Milliseconds of a forward of one row, from a child process. Raises RuntimeError with what it said."""
    argv = [sys.executable, "-m", "loadtest.claims.forward", str(folder), str(inputs)]
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the forward of {folder} could not be timed in {LIMIT_S} s") from error
    if done.returncode:
        said = done.stderr.strip()[-500:] or f"it ended with {done.returncode} and said nothing (-9: out of memory?)"
        raise RuntimeError(f"the forward of {folder} could not be timed: {said}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(folder: Path, inputs: Path) -> dict[str, float]:
    """Load the model of a TorchServe folder and time it."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    file = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text("utf-8"))["model"]["serializedFile"]
    names = [spec["name"] for spec in json.loads((folder / "signature.json").read_text("utf-8"))["inputs"]]
    load: Any = torch.jit.load  # torch gives it no types
    model = load(str(folder / file)).eval()
    with np.load(inputs) as found:
        # an entry of an archive is read anew each time it is asked for, and a slice keeps the whole of it
        given = [found[name][:ROWS].copy() for name in names]
    rows = [[torch.from_numpy(tensor[i : i + 1]) for tensor in given] for i in range(len(given[0]))]
    with torch.inference_mode():
        _times(model, rows, WARM_S)
        times = sorted(_times(model, rows, MEASURE_S))
    return {"median_ms": times[len(times) // 2], "mean_ms": sum(times) / len(times), "n": len(times)}


def _times(model: Any, rows: list[Any], seconds: float) -> list[float]:
    found: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found) < 5:
        row = rows[len(found) % len(rows)]
        begun = time.perf_counter_ns()
        model(*row)
        found.append((time.perf_counter_ns() - begun) / 1e6)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
