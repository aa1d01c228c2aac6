"""How TorchServe is started here: java itself, never the launcher, with everything it writes inside its own folder.

Lives here: `plan`, which writes config.properties, log4j2.xml, metrics.yaml and the model folders, and says the command.
Must not live here: starting, watching or stopping a process (backends/launch.py).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from backends.free_ports import free_ports
from backends.spec import BackendSpec, Command, host_port, is_loopback
from backends.torchserve.folder import assemble, settings
from backends.torchserve.java import find_java

MAX_BODY = 64 * 2**20
HEAP_MB = 512
# worker sockets lie in the temporary folder, and the kernel takes paths up to 107 bytes
LONGEST_TMPDIR = 107 - len("/.ts.sock.9000-0000")


def plan(spec: BackendSpec, *, token_authorization: bool | None = None) -> Command:
    """Write what TorchServe needs into run_dir/<name>/ (made anew) and return how to start it.

    `token_authorization` None means: on unless all addresses are loopback ones. The API that loads and removes models is
    open only without a token on loopback.
    Raises ValueError for a spec TorchServe cannot serve, FileNotFoundError for a missing model, Java or torchserve package.
    """
    if spec.management is None:
        raise ValueError(f"backend {spec.name!r}: TorchServe needs a management address, readiness is read there")
    if not spec.models:
        raise ValueError(f"backend {spec.name!r}: no model to serve")
    found = importlib.util.find_spec("ts")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package torchserve is not installed: pip install 'abgate[torchserve]'")
    home = Path(found.origin).parent.parent
    folder = (Path(spec.run_dir) / spec.name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    own = settings(spec.batching, spec.threads, spec.workers)
    for model in spec.models:
        assemble(model, folder / "store" / model.name, own)
    for name in ("log4j2.xml", "metrics.yaml"):
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    addresses = (spec.http, spec.grpc, spec.management, metrics_address(spec))
    loopback = all(is_loopback(address) for address in addresses)
    token = not loopback if token_authorization is None else token_authorization
    config = folder / "config.properties"
    config.write_text(properties(spec, folder, token=token, model_api=loopback and not token), encoding="utf-8")
    temporary = private_tmpdir(folder)
    argv = (
        find_java(spec.binary),
        f"-Dmodel_server_home={home}",
        f"-Djava.io.tmpdir={temporary}",
        f"-Dlog4j.configurationFile=file://{folder / 'log4j2.xml'}",
        f"-Xmx{HEAP_MB}m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",  # a dead server is restarted, a half-dead one is not
        "-XX:-UsePerfData",  # else java writes into the shared /tmp
        "-cp",
        str(home / "ts" / "frontend" / "model-server.jar"),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable, "-f", str(config), "-s", str(folder / "store"), "-ncs"),
    )
    implementation = f"TorchServe {importlib.metadata.version('torchserve')}"
    return Command(argv, environment(spec, folder, temporary), implementation, stand_in=False, cwd=str(folder))


def properties(spec: BackendSpec, folder: Path, *, token: bool, model_api: bool) -> str:
    """The text of config.properties."""
    assert spec.management is not None
    host, grpc_port = host_port(spec.grpc)
    values = {
        "inference_address": f"http://{spec.http}",
        "management_address": f"http://{spec.management}",
        "metrics_address": f"http://{metrics_address(spec)}",
        "grpc_inference_address": host,
        "grpc_inference_port": grpc_port,
        "grpc_management_address": "127.0.0.1",  # it cannot be switched off: any free port, this machine only
        "grpc_management_port": free_ports(1)[0],
        "disable_token_authorization": str(not token).lower(),
        "enable_model_api": str(model_api).lower(),
        "load_models": ",".join(model.name for model in spec.models),
        "default_workers_per_model": spec.workers,
        "allowed_urls": "file://.*",
        "metrics_mode": "prometheus",
        "metrics_config": folder / "metrics.yaml",
        "disable_system_metrics": "true",
        "ts_open_inference_protocol": "true",
        "job_queue_size": spec.job_queue,
        "number_of_netty_threads": 1,
        "netty_client_threads": 1,
        "max_request_size": MAX_BODY,
        "max_response_size": MAX_BODY,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def metrics_address(spec: BackendSpec) -> str:
    """Where /metrics listens: it can neither be left out nor share the management port, so without one any free port."""
    return spec.metrics.partition("/")[0] if spec.metrics else f"127.0.0.1:{free_ports(1)[0]}"


def environment(spec: BackendSpec, folder: Path, temporary: Path) -> dict[str, str]:
    """The process's environment: ours, minus what TorchServe would read as settings, plus private folders and threads."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TS_")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(spec.threads))
    places = {"TMPDIR": str(temporary), "TEMP": str(temporary)}
    # what torch.compile made is found again by the next start: its folder is not made anew
    kept.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(spec.run_dir).resolve() / "inductor"))
    return kept | threads | places | {"LOG_LOCATION": str(folder / "logs"), "METRICS_LOCATION": str(folder / "logs")}


def private_tmpdir(folder: Path) -> Path:
    """Make an empty temporary folder of this server alone, short enough for the workers' sockets."""
    place = folder / "tmp"
    if len(os.fsencode(place)) > LONGEST_TMPDIR:
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        place = Path(tempfile.gettempdir()) / f"abgate-{os.getuid()}-{digest}"
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)
    return place
