"""What stands around a run: the configuration's and the supervisor's words on servers, and the model's files.

Reads abgate.yaml (only the few keys a load test needs; the gateway validates the file), the supervisor's backends.json
and a model's artefacts. Sends nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import yaml

from gateway.errors import ConfigError
from loadtest.job import read
from loadtest.options import RunOptions
from loadtest.profiles import Profile
from loadtest.targets import Kind, Target, split_address


@dataclass(frozen=True, slots=True)
class Backend:
    """One server as far as it is known; pid None where nobody supervises it here."""

    name: str
    kind: str
    http: str | None = None
    grpc: str | None = None
    metrics: str | None = None
    pid: int | None = None
    implementation: str = ""
    stand_in: bool = False
    cores: Any = None
    threads: int | None = None
    workers: int | None = None
    state: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """The parts of abgate.yaml a load test needs; empty where none was given."""

    text: str = ""
    base: Path = Path()
    backends: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of the file's bytes, "" without one."""
        return hashlib.sha256(self.text.encode()).hexdigest() if self.text else ""


def read_config(options: RunOptions) -> Config:
    """The configuration given as text or path; raises ConfigError when it is no YAML mapping."""
    try:
        text = options.config_text
        if text is None:
            text = options.config_path.read_text(encoding="utf-8") if options.config_path else ""
        document = yaml.safe_load(text) if text else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{options.config_path or 'configuration'}: cannot be read as YAML: {error}"]) from error
    parts = [document.get(key) or {} for key in ("backends", "models")] if isinstance(document, dict) else []
    if not all(isinstance(part, dict) for part in parts) or not parts:
        raise ConfigError([f"{options.config_path or 'configuration'}: backends and models must be mappings"])
    base = options.config_path.parent if options.config_path else Path()
    return Config(text, base, parts[0], parts[1])


def read_backends(info: Any, config: Config) -> dict[str, Backend]:
    """Every server by name: the configuration's, completed or replaced by what the supervisor's file tells."""
    known = Backend.__dataclass_fields__.keys() - {"name"}
    supervised = (info or {}).get("backends") or {}
    backends = {}
    for name in [*config.backends, *(name for name in supervised if name not in config.backends)]:
        told = {**(config.backends.get(name) or {}), **(supervised.get(name) or {})}
        backends[name] = Backend(name, **{"kind": "", **{key: told[key] for key in known if key in told}})
    return backends


def gateway_pid(info: Any) -> int | None:
    """The pid of the gateway the supervisor started, None where it tells none."""
    pid = ((info or {}).get("gateway") or {}).get("pid")
    return pid if isinstance(pid, int) else None


def read_info(path: Path) -> Any:
    """The supervisor's file; None where there is none, or where a supervisor that is gone has left it behind."""
    document = read(path)
    if not isinstance(document, dict):
        return None
    pid = document.get("pid")
    return None if isinstance(pid, int) and not psutil.pid_exists(pid) else document


def reachable(address: str, where: str) -> str:
    """An address to connect to: a listener on all interfaces is reached over loopback; raises ConfigError for no address."""
    host, port = split_address(address if not address.startswith(":") else f"0.0.0.0{address}", where)
    host = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def choose_target(options: RunOptions, profile: Profile, backends: Mapping[str, Backend]) -> Target:
    """The gateway, or with --direct the one server; raises ConfigError where that server's addresses are not known."""
    if options.direct is None:
        return Target(
            "gateway",
            reachable(profile.targets.http or options.http, "the gateway's HTTP address"),
            reachable(profile.targets.grpc or options.grpc, "the gateway's gRPC address"),
            tls_ca=str(options.tls_ca.absolute()) if options.tls_ca else None,
        )
    backend = backends.get(options.direct)
    if backend is None:
        raise ConfigError([f"--direct {options.direct}: no such backend; there are {', '.join(backends) or 'none'}"])
    if backend.kind not in ("tensorflow_serving", "torchserve"):
        raise ConfigError([f"--direct {options.direct}: kind {backend.kind!r} cannot be loaded directly"])
    problems = []
    for protocol, address in (("tfs-rest", backend.http), ("tfs-grpc", backend.grpc)):
        if protocol in profile.protocols and not address:
            problems.append(f"--direct {options.direct}: it has no address for {protocol}; leave that out of the mix")
    if problems:
        raise ConfigError(problems)
    kind = cast(Kind, backend.kind)
    used = [
        reachable(address, f"backend {backend.name}") if address else "" for address in (backend.http, backend.grpc)
    ]
    return Target(kind, used[0], used[1], arm=backend.name)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files as far as they exist."""

    payloads: Path
    signature: Path | None
    manifest: Mapping[str, Any] | None


def model_files(options: RunOptions, profile: Profile, config: Config, profile_path: Path) -> ModelFiles:
    """Where a model's inputs, signature and parity proof are; raises ConfigError on missing inputs or a failed proof."""
    named = (config.models.get(profile.model) or {}).get("signature")
    signature = (
        config.base / named if named and named != "import" else options.artifacts / profile.model / "signature.json"
    )
    folder = signature.parent if signature.is_file() else options.artifacts / profile.model
    payloads = folder / "inputs.npz"
    if profile.payloads is not None:
        beside = profile_path.parent / profile.payloads
        payloads = profile.payloads if profile.payloads.is_file() or not beside.is_file() else beside
    problems = []
    if not payloads.is_file():
        hint = (
            ""
            if profile.payloads
            else f"; build the model with `abgate models build {profile.model}`, or name payloads"
        )
        problems.append(f"{payloads}: no such file{hint}")
    manifest = read(folder / "manifest.json")
    if isinstance(manifest, dict) and manifest.get("ok") is False:
        failures = "; ".join(map(str, manifest.get("failures") or ["the artefacts differ"]))
        problems.append(
            f"{folder / 'manifest.json'}: parity failed ({failures}); the servers do not serve the same model"
        )
    if problems:
        raise ConfigError(problems)
    return ModelFiles(
        payloads, signature if signature.is_file() else None, manifest if isinstance(manifest, dict) else None
    )
