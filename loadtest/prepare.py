"""Before a run: every question asked and answered, or a list of what is wrong.

Reads the profile, the configuration, the supervisor's file, the model's artefacts and the gateway's admin API, and makes
the run directory last. Sends no load and starts no process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from gateway.protocol.signature_file import load as load_signature
from loadtest import profiles, runfile
from loadtest.admin import Admin
from loadtest.job import Job
from loadtest.options import RunOptions
from loadtest.payloads import check_problems, load_dataset
from loadtest.surroundings import (
    Backend,
    Config,
    ModelFiles,
    choose_target,
    gateway_pid,
    model_files,
    reachable,
    read_backends,
    read_config,
    read_info,
)

_UNIT_HEADER = "x-user-id"


@dataclass(frozen=True)
class Prepared:
    """Everything known before the first request. replayed: what of a capture is sent, in words; "" where none is."""

    options: RunOptions
    run_id: str
    run_dir: Path
    job: Job
    config: Config
    files: ModelFiles
    admin: Admin | None
    arms: Mapping[str, Any]
    gateway_pids: tuple[int, ...]
    records_dropped: int | None
    replayed: str = ""

    def backends(self) -> dict[str, Backend]:
        """Every server as it is now."""
        return read_backends(read_info(self.options.backends_info), self.config)

    def involved(self) -> dict[str, Backend]:
        """The servers behind this run's arms, as they are now."""
        wanted = {arm["backend"] for arm in self.arms.values()}
        return {name: backend for name, backend in self.backends().items() if name in wanted}


def prepare(options: RunOptions) -> Prepared:
    """Read and check everything; raises ConfigError, SignatureError, AdminError. Makes the run directory last."""
    profile_path, profile, replayed = _profile(options)
    config = read_config(options)
    info = read_info(options.backends_info)
    backends = read_backends(info, config)
    target = choose_target(options, profile, backends)
    captured = ModelFiles(profile.replay, None, None) if profile.replay is not None else None
    files = captured or model_files(options, profile, config, profile_path)
    signature = load_signature(files.signature) if files.signature else None
    outputs = tuple(spec.name for spec in signature.outputs) if signature else ()
    if profile.replay is None:
        dataset = load_dataset(files.payloads, profile.split, signature)
        if problems := check_problems(profile.check, dataset, outputs):
            raise ConfigError([f"{profile_path}: {problem}" for problem in problems])
    admin, experiment, dropped = None, {}, None
    pids = tuple(pid for pid in (gateway_pid(info),) if pid)
    if target.kind == "gateway":
        admin = Admin(
            reachable(options.admin or target.http, "the admin API's address"), options.admin_token, target.tls_ca
        )
        experiment = _experiment(admin, profile.model)
        pids = _gateway_pids(admin) or pids
        dropped = admin.records().get("dropped")
        arms = runfile.arms_of(experiment, backends)
    else:
        spoken = [target.protocol(protocol) for protocol in profile.protocols]
        arms = runfile.direct_arm(backends[target.arm], list(profile.protocols), spoken)
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{profile.name}-{secrets.token_hex(2)}"
    run_dir = (options.out_dir / run_id).absolute()
    for name in ("ledger", "records", "scrapes", "work"):
        (run_dir / name).mkdir(parents=True)
    job = Job(
        profile=profile,
        target=target,
        work=run_dir / "work",
        payloads=files.payloads.absolute(),
        signature=files.signature.absolute() if files.signature else None,
        signature_name=signature.signature_name if signature else "serving_default",
        unit_header=profile.units.header or experiment.get("unit_header") or _UNIT_HEADER,
        output=profile.check.output or (outputs[0] if outputs else None),
    )
    return Prepared(options, run_id, run_dir, job, config, files, admin, arms, pids, dropped, replayed)


def _profile(options: RunOptions) -> tuple[Path, profiles.Profile, str]:
    """The profile asked for, where it came from, and what a capture holds."""
    replayed = ""
    if options.replay is not None:
        path = options.replay
        profile, replayed = replayed_profile(options)
    else:
        path = profiles.find(options.profile)
        overrides = {key: getattr(options, key) for key in ("duration", "users", "rate", "warmup", "seed")}
        profile = profiles.load(path, overrides)
    if profile.arrivals is not None and (options.ui or options.workers):
        raise ConfigError([f"{path}: an open loop runs without Locust; leave out --ui and --workers"])
    return path, profile, replayed


def replayed_profile(options: RunOptions) -> tuple[profiles.Profile, str]:
    """The profile of a capture, its requests at its times, without a check, and what it holds in words; raises ConfigError."""
    from loadtest.points.replayed import is_grpc
    from loadtest.replay import Options, Replay

    assert options.replay is not None
    if given := [key for key in ("users", "rate") if getattr(options, key) is not None]:
        raise ConfigError([f"--{key}: the capture says it; --speed changes it" for key in given])
    models = {options.model} if options.model else None
    replay = Replay.load(options.replay, Options(speed=options.speed, models=models))
    found = sorted({replay.payload(index).model for index in range(replay.distinct)})
    if len(found) > 1:
        raise ConfigError([f"{options.replay}: holds several models; name one with --model: {', '.join(found)}"])
    mix: dict[str, int] = {}
    for protocol in replay.protocol:
        wanted = "tfs-grpc" if is_grpc(protocol) else "tfs-rest"
        mix[wanted] = mix.get(wanted, 0) + 1
    warmup = options.warmup or 0.0
    # the last request is inside the window, and an arrival's distance behind it
    span = (float(replay.due_ns[-1]) * (1 + 1 / max(1, len(replay) - 1)) + 1e6) / 1e9
    document = {
        "name": f"replay-{replay.start.capture}",
        "model": found[0],
        "mix": mix,
        "arrivals": "captured",
        "replay": options.replay.absolute(),
        "speed": options.speed,
        "warmup": warmup,
        "duration": options.duration or span - warmup,
        "check": "off",
    }
    return profiles.parse(document, source=str(options.replay), overrides={"seed": options.seed}), replay.told


def _experiment(admin: Admin, model: str) -> dict[str, Any]:
    experiments = admin.experiments().get("experiments") or {}
    if model not in experiments:
        raise ConfigError([f"model: the gateway has no model {model!r}; it has {', '.join(experiments) or 'none'}"])
    return dict(experiments[model])


def _gateway_pids(admin: Admin) -> tuple[int, ...]:
    pids = admin.status().get("pids")
    found = pids.values() if isinstance(pids, dict) else pids if isinstance(pids, list) else [pids]
    return tuple(pid for pid in found if isinstance(pid, int))
