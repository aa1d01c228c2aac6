"""What a run tells its generator processes: one JSON file, its path in the environment, and the files they answer with.

Here lives the format between `run` and `locustfile`, and the small files of a run in progress (window, progress);
all are replaced atomically. Nothing here starts processes or sends requests.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.errors import ConfigError
from gateway.protocol.signature_file import load as load_signature
from loadtest.arrivals import Window
from loadtest.profiles import Profile, find, load
from loadtest.targets import Target

ENVIRONMENT = "ABGATE_LOADTEST_JOB"
WORKER = "ABGATE_LOADTEST_WORKER"
PROFILE = "ABGATE_PROFILE_NAME"


@dataclass(frozen=True, slots=True)
class Job:
    """One run as its generator processes see it. work: the directory of journals and files in progress.

    standalone: nobody but Locust runs it (see `from_environment`); it has no ledger and no end of its own.
    """

    profile: Profile
    target: Target
    work: Path
    payloads: Path
    signature: Path | None
    signature_name: str
    unit_header: str
    output: str | None
    standalone: bool = False

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
            "profile": self.profile.model_dump(mode="json", by_alias=True),
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


def from_environment(environment: Mapping[str, str]) -> Job | None:
    """The job the environment names, None where it names none.

    ABGATE_LOADTEST_JOB is a run's own job file. ABGATE_PROFILE_NAME lets Locust run by itself, as in docker-compose: its
    page starts and stops the users of that profile; ABGATE_HTTP and ABGATE_GRPC are the gateway's listeners,
    ABGATE_ARTIFACTS the models' folder. Raises ConfigError for a profile or inputs that are none.
    """
    if ENVIRONMENT in environment:
        return Job.load(Path(environment[ENVIRONMENT]))
    if PROFILE not in environment:
        return None
    profile = load(find(environment[PROFILE]))
    if profile.arrivals is not None:
        raise ConfigError([f"{environment[PROFILE]}: Locust has users, no arrivals; run `abgate loadtest` with it"])
    folder = Path(environment.get("ABGATE_ARTIFACTS", "model_store/artifacts")) / profile.model
    signature_file = folder / "signature.json"
    signature = load_signature(signature_file) if signature_file.is_file() else None
    outputs = signature.outputs if signature else ()
    return Job(
        profile=profile,
        target=Target(
            "gateway",
            environment.get("ABGATE_HTTP", profile.targets.http or "127.0.0.1:8080"),
            environment.get("ABGATE_GRPC", profile.targets.grpc or "127.0.0.1:8081"),
        ),
        work=Path(),
        payloads=profile.payloads or folder / "inputs.npz",
        signature=signature_file if signature else None,
        signature_name=signature.signature_name if signature else "serving_default",
        unit_header=profile.units.header or "x-user-id",
        output=profile.check.output or (outputs[0].name if outputs else None),
        standalone=True,
    )


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
