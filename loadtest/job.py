"""What a run tells its generator processes: one JSON file, its path in the environment, and the files they answer with.

Here lives the format between `run` and `locustfile`, and the small files of a run in progress (window, progress);
all are replaced atomically. Nothing here starts processes or sends requests.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from loadtest.arrivals import Window
from loadtest.profiles import Profile
from loadtest.targets import Target

ENVIRONMENT = "ABGATE_LOADTEST_JOB"
WORKER = "ABGATE_LOADTEST_WORKER"


@dataclass(frozen=True, slots=True)
class Job:
    """One run as its generator processes see it. work: the directory of journals and files in progress."""

    profile: Profile
    target: Target
    work: Path
    payloads: Path
    signature: Path | None
    signature_name: str
    unit_header: str
    output: str | None

    @property
    def window_file(self) -> Path:
        """Written once by the process that leads the run, when the warm-up begins."""
        return self.work / "window.json"

    @property
    def progress_file(self) -> Path:
        """Replaced several times a second by the process that leads the run."""
        return self.work / "progress.json"

    def journal_file(self, worker: str, pid: int) -> Path:
        """The journal of one generator process."""
        return self.work / f"ledger-{worker}-{pid}.jsonl"

    def save(self) -> Path:
        """Write the job beside its journals; returns the file."""
        path = self.work / "job.json"
        document = {
            "profile": self.profile.model_dump(mode="json"),
            "target": asdict(self.target),
            "work": str(self.work),
            "payloads": str(self.payloads),
            "signature": str(self.signature) if self.signature else None,
            "signature_name": self.signature_name,
            "unit_header": self.unit_header,
            "output": self.output,
        }
        replace(path, document)
        return path

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read what `save` wrote."""
        document = orjson.loads(path.read_bytes())
        return cls(
            profile=Profile.model_validate(document["profile"]),
            target=Target(**document["target"]),
            work=Path(document["work"]),
            payloads=Path(document["payloads"]),
            signature=Path(document["signature"]) if document["signature"] else None,
            signature_name=document["signature_name"],
            unit_header=document["unit_header"],
            output=document["output"],
        )

    def save_window(self, window: Window) -> None:
        """Tell every process of the run its window."""
        replace(self.window_file, asdict(window))

    def load_window(self) -> Window | None:
        """The run's window, None before the warm-up begins."""
        document = read(self.window_file)
        return Window(**document) if document else None


def replace(path: Path, document: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(orjson.dumps(document))
    part.rename(path)


def read(path: Path) -> Any:
    """The JSON of a file, None where it does not exist (yet) or is none."""
    try:
        return orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
