"""Where the artefacts of one model lie, and their digests.

Here live names of files and sha256 sums, nothing that builds, runs or compares a model.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20
# written next to the artefacts, about them
_RECORDS = frozenset({"build.json", "manifest.json"})
# a folder with a manifest of its own
VARIANTS = "variants"


@dataclass(frozen=True, slots=True)
class Layout:
    """The folder of one model below the artefact root."""

    root: Path
    model: str

    @property
    def folder(self) -> Path:
        """Everything of this model."""
        return self.root / self.model

    @property
    def signature(self) -> Path:
        """The signature file, which gateway, handler and load test read."""
        return self.folder / "signature.json"

    @property
    def inputs(self) -> Path:
        """Evaluation inputs: one array per input name, and `label` and `split`, or `out:<output>`."""
        return self.folder / "inputs.npz"

    @property
    def reference(self) -> Path:
        """What the Keras definition itself answered to the inputs, one array per output name."""
        return self.folder / "reference.npz"

    @property
    def weights(self) -> Path:
        """The one weights file both definitions are filled from."""
        return self.folder / "weights.npz"

    @property
    def savedmodel(self) -> Path:
        """TensorFlow Serving's base path; the model is in version 1 below it."""
        return self.folder / "savedmodel"

    @property
    def torchserve(self) -> Path:
        """TorchServe's model folder, as `torch-model-archiver --archive-format no-archive` lays it out."""
        return self.folder / "torchserve" / self.model

    @property
    def build_record(self) -> Path:
        """What the artefacts were made of: keys, digests, and how each is run."""
        return self.folder / "build.json"

    @property
    def manifest(self) -> Path:
        """The parity proof."""
        return self.folder / "manifest.json"


def sha256_file(path: Path) -> str:
    """The file's sha256 in hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def files_below(folder: Path, *, records: bool = False) -> Iterator[Path]:
    """Every artefact file of a folder (or the file itself), in a fixed order; the records about them only when asked for."""
    if folder.is_file():
        yield folder
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (records or path.name not in _RECORDS):
            yield path


def digests(folder: Path, base: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, by its path relative to `base`."""
    paths = list(files_below(folder))
    # hashing releases the interpreter lock: two threads halve the wait for half a gigabyte
    with ThreadPoolExecutor(2) as pool:
        return {
            path.relative_to(base).as_posix(): sum_
            for path, sum_ in zip(paths, pool.map(sha256_file, paths), strict=True)
        }


def own_digests(layout: Layout) -> dict[str, str]:
    """sha256 of the model's own files, by path in its folder; its variants have a manifest of their own."""
    sums: dict[str, str] = {}
    for path in sorted(layout.folder.iterdir()):
        if path.name != VARIANTS and path.name not in _RECORDS:
            sums |= digests(path, layout.folder)
    return sums


def combined(sums: dict[str, str]) -> str:
    """One sha256 over many: of the lines `<sha256>  <path>`, sorted by path (as `sha256sum` writes them)."""
    lines = "".join(f"{sums[path]}  {path}\n" for path in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()
