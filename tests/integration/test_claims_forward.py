"""The forward that a worker's share is told against: of a real TorchScript folder, here and in its own process."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from loadtest.claims import forward
from tests.integration.tiny_torchserve import write_tiny

ROWS = 1_000_000


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Path, Path]:
    """A TorchServe folder and inputs that are large beside it."""
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, x=np.ones((ROWS, 3), np.float32))
    return write_tiny(tmp_path / "tiny"), inputs


# torch.jit.load is deprecated, and the only way to read what TorchServe serves
@pytest.mark.filterwarnings("ignore:.*torch.jit.load.* is deprecated:DeprecationWarning")
def test_the_inputs_are_read_once_whatever_their_size(tiny: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "WARM_S", 0.0)
    monkeypatch.setattr(forward, "MEASURE_S", 0.05)
    tracemalloc.start()
    try:
        told = forward.main(*tiny)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told["n"] >= 5
    assert 0.0 < told["median_ms"] < 1000.0
    assert peak < 3 * ROWS * 3 * 4  # once the file, once what is cut from it; 64 rows each held the whole of it before


def test_a_process_that_fails_says_why(tiny: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="No such file"):
        forward.measure(tiny[0], tmp_path / "nowhere.npz")
