"""Decides between the real tensorflow_model_server and the stand-in, and says how to start either with the same flags.

Lives here: `plan`, which writes the configuration files into run_dir/<name>/. Must not live here: starting or watching a
process (backends/launch.py) and TensorFlow itself. The launcher pins the cores; threads are set here.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from backends.spec import BackendSpec, Command, ServedModel, host_port
from backends.tfserving.config_text import batching_parameters, model_config_list, monitoring_config

BINARY = "tensorflow_model_server"
MODEL_FILES = ("saved_model.pb", "model.tflite")
# beside the version folders of a model that XLA compiles: a JSON list of batch sizes
SIZES_FILE = "batch_sizes.json"
HANDLER_THREADS = 64  # the real server's default, 4 per core, refuses 32 parallel gRPC callers on 2 cores


def plan(spec: BackendSpec) -> Command:
    """Write what the TensorFlow side needs into run_dir/<name>/ (made anew) and return how to start it.

    `spec.binary` or, without it, tensorflow_model_server on PATH is the real server; where there is none, the stand-in.
    Readiness is read from REST, GET /v1/models/<model>. The real server listens on every interface: it has no flag for one.
    Raises ValueError for a spec that cannot be served, FileNotFoundError for a missing model, binary or TensorFlow.
    """
    if not spec.models:
        raise ValueError(f"backend {spec.name!r}: no model to serve")
    for model in spec.models:
        _check_model(spec, model)
    binary = find_binary(spec.binary)
    sizes = compiled_sizes(spec.models)
    if binary is not None:
        _check_real(spec, sizes)
    folder = (Path(spec.run_dir) / spec.name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    flags = [*_address_flags(spec), *_thread_flags(spec), *_file_flags(spec, folder, sizes)]
    if binary is not None:
        argv = (binary, *flags, *(["--xla_cpu_compilation_enabled=true"] if sizes else []))
        return Command(
            argv, dict(os.environ), f"TensorFlow Serving {binary_version(binary)}", stand_in=False, cwd=str(folder)
        )
    try:
        version = importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"backend {spec.name!r}: no {BINARY} on PATH, and no TensorFlow for the stand-in: pip install 'abgate[tensorflow]'"
        ) from None
    host = host_port(spec.http)[0]
    argv = (sys.executable, "-m", "backends.embedded", f"--host={host}", *flags)
    # The folder of the package, so that the module is found from another working directory without an installation.
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    return Command(argv, env, f"abgate embedded stand-in (TensorFlow {version})", stand_in=True, cwd=str(folder))


def find_binary(configured: str | None) -> str | None:
    """Return the path of the real server, None when there is none; a configured one that is missing is an error."""
    if configured is None:
        return shutil.which(BINARY)
    found = shutil.which(configured)
    if found is None:
        raise FileNotFoundError(f"{configured}: not an executable file; expected the path of {BINARY}")
    return str(Path(found).resolve())


def binary_version(binary: str) -> str:
    """Ask the real server for its version ("TensorFlow ModelServer: 2.19.1-..."); "unknown" when it does not say."""
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    for line in answer.stdout.splitlines():
        name, _, version = line.partition(":")
        if name.strip() == "TensorFlow ModelServer" and version.strip():
            return version.strip()
    return "unknown"


def _check_model(spec: BackendSpec, model: ServedModel) -> None:
    where = f"backend {spec.name!r}, model {model.name!r}"
    if model.version is not None and not model.version.isdigit():
        raise ValueError(f"{where}: version {model.version!r}: TensorFlow Serving's versions are whole numbers")
    base = Path(model.path)
    folder = model.version if model.version is not None else "*"
    if not any(found.parent.name.isdigit() for file in MODEL_FILES for found in base.glob(f"{folder}/{file}")):
        raise FileNotFoundError(
            f"{where}: no {folder}/saved_model.pb under {base}: expected a folder of version folders, each a SavedModel"
            " (or, for the stand-in, a LiteRT model.tflite)"
        )


def compiled_sizes(models: tuple[ServedModel, ...]) -> tuple[int, ...]:
    """The batch sizes that the models' artefacts were compiled for; () where any size is as good as another."""
    files = [Path(model.path) / SIZES_FILE for model in models]
    return tuple(sorted({int(size) for file in files if file.is_file() for size in json.loads(file.read_text())}))


def allowed_sizes(sizes: tuple[int, ...], largest: int) -> tuple[int, ...]:
    """What a batch is padded to: the compiled sizes below the largest batch, and the largest itself."""
    return (*(size for size in sizes if size < largest), largest) if sizes else ()


def _check_real(spec: BackendSpec, sizes: tuple[int, ...]) -> None:
    """Refuse what only the stand-in can do, before the real server fails at it in its own way."""
    for model in spec.models:
        files = [file for name in MODEL_FILES for file in Path(model.path).glob(f"*/{name}")]
        if files and not any(file.name == "saved_model.pb" for file in files):
            raise ValueError(
                f"backend {spec.name!r}, model {model.name!r}: {model.path} holds LiteRT files, which {BINARY} loads only "
                "with --prefer_tflite_model, and abgate does not start it so; serve a SavedModel, or take the binary off PATH "
                "for the stand-in"
            )
    largest = spec.batching.max_batch_size
    if largest > 1 and sizes and largest not in sizes:
        raise ValueError(
            f"backend {spec.name!r}: batching.max_batch_size {largest} is none of the sizes its model was compiled for"
            f" ({', '.join(map(str, sizes))}): {BINARY} would compile on a client's request"
        )


def _address_flags(spec: BackendSpec) -> list[str]:
    (http_host, http_port), (grpc_host, grpc_port) = host_port(spec.http), host_port(spec.grpc)
    if http_host != grpc_host:
        raise ValueError(f"backend {spec.name!r}: http {spec.http} and grpc {spec.grpc} must be on the same host")
    return [f"--port={grpc_port}", f"--rest_api_port={http_port}"]


def _thread_flags(spec: BackendSpec) -> list[str]:
    """`workers` requests at a time with `threads` each, as the other server has them as processes."""
    if spec.threads < 1 or spec.workers < 1:
        raise ValueError(f"backend {spec.name!r}: threads and workers must be at least 1")
    # TensorFlow's operator pool is one per process: `workers` processes of `threads` have as many together. A pool of one
    # runs nothing: the operator stays on its caller, which is one of the `workers` threads.
    intra = spec.threads * spec.workers if spec.threads > 1 else 1
    handlers = max(HANDLER_THREADS, 2 * spec.batching.max_batch_size)  # a waiting handler holds one request of a batch
    return [
        f"--tensorflow_intra_op_parallelism={intra}",
        f"--tensorflow_inter_op_parallelism={spec.workers}",
        f"--grpc_max_threads={handlers}",
        f"--rest_api_num_threads={handlers}",
    ]


def _file_flags(spec: BackendSpec, folder: Path, sizes: tuple[int, ...]) -> list[str]:
    files = {
        "model_config_file": ("models.config", model_config_list(spec.models)),
        "monitoring_config_file": ("monitoring.config", monitoring_config()),
    }
    flags = []
    if spec.batching.max_batch_size > 1:
        text = batching_parameters(
            spec.batching,
            spec.workers,
            spec.job_queue,
            spec.max_rows,
            allowed_sizes(sizes, spec.batching.max_batch_size),
        )
        files["batching_parameters_file"] = ("batching.config", text)
        flags.append("--enable_batching=true")
    for flag, (name, text) in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        flags.append(f"--{flag}={folder / name}")
    return flags
