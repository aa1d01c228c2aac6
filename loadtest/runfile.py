"""run.json: everything about a run that is not a row, and the copy of the gateway's records beside it.

Builds the document from values that others gathered; reads the machine and installed versions; judges nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from gateway.stats.result import NotComputable
from gateway.stats.schedule import ScheduleCheck
from loadtest.arrivals import Window
from loadtest.job import Job
from loadtest.ledger import Segment
from loadtest.resources import Usage
from loadtest.summary import Verdict, limited_by
from loadtest.surroundings import Backend, Config, ModelFiles
from loadtest.watch import Observed

FORMAT = 1
_PACKAGES = ("abgate", "locust", "gevent", "geventhttpclient", "grpcio", "protobuf", "numpy", "uvloop", "httptools")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a finished run knows of itself."""

    run_id: str
    job: Job
    window: Window
    config: Config
    files: ModelFiles
    arms: Mapping[str, Any]
    backends: Mapping[str, Backend]
    usage: Sequence[Usage]
    observed: Observed
    segments: Sequence[Segment]
    ledger_dropped: int
    records_dropped: int | None
    verdict: Verdict
    schedule: ScheduleCheck | NotComputable | None = None
    generator_us: float | None = None


def machine() -> dict[str, Any]:
    """The machine the generator ran on; memory in bytes."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Installed versions of what generated and timed the load."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def arms_of(experiment: Mapping[str, Any], backends: Mapping[str, Backend]) -> dict[str, Any]:
    """The arms of the admin API's experiment, each with its server's cores, threads and workers where told."""
    arms = {}
    for arm, told in (experiment.get("arms") or {}).items():
        backend = backends.get(told.get("backend", ""))
        arms[arm] = {
            "backend": told.get("backend", ""),
            "kind": told.get("kind", ""),
            "implementation": told.get("implementation", ""),
            "stand_in": bool(told.get("stand_in", False)),
            "weight": told.get("weight", 0),
            "wire": told.get("wire", {}),
            **_resources_given(backend),
        }
    return arms


def direct_arm(backend: Backend, protocols: Sequence[str], spoken: Sequence[str]) -> dict[str, Any]:
    """The only arm of a direct run, in the same words."""
    return {
        backend.name: {
            "backend": backend.name,
            "kind": backend.kind,
            "implementation": backend.implementation,
            "stand_in": backend.stand_in,
            "weight": 100,
            "wire": dict(zip(protocols, spoken, strict=True)),
            **_resources_given(backend),
        }
    }


def _resources_given(backend: Backend | None) -> dict[str, Any]:
    if backend is None:
        return {"cores": None, "threads": None, "workers": None}
    return {"cores": backend.cores, "threads": backend.threads, "workers": backend.workers}


def document(facts: Facts) -> dict[str, Any]:
    """run.json's contents."""
    job, window = facts.job, facts.window
    profile = job.profile.model_dump(mode="json", by_alias=True)
    usage = {item.role: item for item in facts.usage}
    generator, gateway = usage.get("generator"), usage.get("gateway")
    limits = {
        "generator_mean_cores": generator.mean_cores if generator else None,
        "gateway_mean_cores": gateway.mean_cores if gateway else None,
        "generator_busiest_process_cores": generator.max_process_cores if generator else None,
        "gateway_busiest_process_cores": gateway.max_process_cores if gateway else None,
        "generator_us": facts.generator_us,
        "limited_by": limited_by(*(item.max_process_cores if item else 0.0 for item in (generator, gateway))),
    }
    return {
        "format": FORMAT,
        "run_id": facts.run_id,
        "kind": "live split" if job.target.kind == "gateway" else "direct",
        "loop": "closed" if job.profile.arrivals is None else "open",
        "schedule": None if facts.schedule is None else asdict(facts.schedule),
        "profile": profile,
        "profile_sha256": hashlib.sha256(json.dumps(profile, sort_keys=True).encode()).hexdigest(),
        "seed": job.profile.seed,
        "target": {"kind": job.target.kind, "http": job.target.http, "grpc": job.target.grpc},
        "unit_header": job.unit_header,
        "window": {
            "warmup_start_ns": window.warmup_start_ns,
            "start_ns": window.start_ns,
            "end_ns": window.end_ns,
        },
        "machine": machine(),
        "versions": versions(),
        "config_sha256": facts.config.sha256,
        "config": facts.config.text,
        "model": {"name": job.profile.model, "manifest": facts.files.manifest},
        "arms": facts.arms,
        "processes": [
            {
                "role": item.role,
                "pids": list(item.pids),
                "cpu_seconds": item.cpu_seconds,
                "mean_cores": item.mean_cores,
                "max_rss_bytes": item.max_rss_bytes,
            }
            for item in facts.usage
        ],
        "scrapes": facts.observed.scrapes,
        "gateway": {
            "records_dropped": facts.records_dropped,
            "revision": facts.observed.revision,
            "phases": facts.observed.phases,
        },
        "limits": limits,
        "ledger": {"rows": sum(segment.rows for segment in facts.segments), "dropped": facts.ledger_dropped},
        "events": facts.observed.events,
        "verdict": {"exit_code": facts.verdict.exit_code, "reasons": list(facts.verdict.reasons)},
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write run.json whole."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    part.rename(path)


def copy_records(segments: Sequence[str], directory: Path, window: Window) -> tuple[int, list[str]]:
    """Copy the record segments with rows of the run's time into directory; how many, and what could not be read."""
    copied, problems = 0, []
    for name in segments:
        source = Path(name)
        try:
            times = _times(source)
            if times is None or times[1] < window.warmup_start_ns or times[0] >= window.end_ns:
                continue
            shutil.copyfile(source, directory / source.name)
            copied += 1
        except Exception as error:  # a broken segment must not cost the rest of the run
            problems.append(f"records {name}: {error}")
    return copied, problems


def _times(path: Path) -> tuple[int, int] | None:
    """The first and last time_ns of a record segment, None when it is empty."""
    import numpy as np
    from arro3.io import read_parquet

    with path.open("rb") as file:  # the reader panics on a file that is no Parquet
        head, size = file.read(4), file.seek(0, 2)
        file.seek(max(0, size - 4))
        if size < 12 or head != b"PAR1" or file.read(4) != b"PAR1":
            raise ValueError("is no whole Parquet file")
    low, high = None, None
    for batch in read_parquet(str(path)):
        if batch.num_rows:
            times = np.asarray(batch.column("time_ns"))
            low = int(times.min()) if low is None else min(low, int(times.min()))
            high = int(times.max()) if high is None else max(high, int(times.max()))
    return None if low is None or high is None else (low, high)
