"""What a load test is asked to do and what came of it: the values that cross from the command line and back.

Nothing here acts; `run` reads these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RunOptions:
    """One load test as asked for. None keeps the profile's value.

    profile: a file or a shipped profile's name. http, grpc: the gateway's listeners as host:port, unless the profile
    names targets. admin: host:port of the admin API, None: http. duration, warmup in seconds; rate in requests a second.
    direct: name of a backend to load without the gateway. workers: 0 runs Locust in one process, n in a master and n
    workers. backends_info: the supervisor's file. artifacts: where models' inputs and manifests are looked for.
    tls_ca: the certificates to trust when the gateway's listeners speak TLS, None when they do not.
    config_path, config_text: the abgate.yaml in force, for addresses and for the record. progress: show it on the
    terminal. hold_ui: with ui, keep Locust's page open after the run until interrupted. replay: a capture to send in place of
    a profile's requests (profile is then ""), speed times as fast; model: which of the capture's.
    """

    profile: str
    http: str = "127.0.0.1:8080"
    grpc: str = "127.0.0.1:8081"
    admin: str | None = None
    admin_token: str | None = field(default=None, repr=False)
    duration: float | None = None
    users: int | None = None
    rate: float | None = None
    warmup: float | None = None
    seed: int | None = None
    direct: str | None = None
    workers: int = 0
    ui: bool = False
    ui_port: int | None = None
    hold_ui: bool = True
    out_dir: Path = Path(".abgate/runs")
    tls_ca: Path | None = None
    backends_info: Path = Path(".abgate/run/backends.json")
    artifacts: Path = Path("model_store/artifacts")
    config_path: Path | None = None
    config_text: str | None = None
    progress: bool = True
    replay: Path | None = None
    speed: float = 1.0
    model: str | None = None


@dataclass(frozen=True)
class RunResult:
    """What came of it. run_dir None: nothing was measured. reasons: one line each, why exit_code is not 0.

    exit_code: 0 fine; 1 an arm made too many errors or too many wrong answers; 2 nothing can be said: interrupted, an arm
    without requests, rows lost, less than 95% of the wanted rate was sent, or INVALID: more than 1% of an open loop's
    arrivals were late or dropped; 3 bad profile, configuration or surroundings, nothing was sent; 99 the generator failed.
    """

    run_dir: Path | None
    exit_code: int
    reasons: tuple[str, ...] = ()
