"""python -m backends.torchserve: plan one TorchServe and become it, for a container where something else supervises.

The same plan as under `abgate up`; the process is java, so signals and exit codes are its own.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from backends.spec import BackendSpec, Batching, ServedModel
from backends.torchserve.plan import plan


def served_model(text: str) -> ServedModel:
    """Read NAME=PATH, a model folder or .mar file."""
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=PATH, e.g. digits=/models/digits/torchserve/digits")
    return ServedModel(name, path)


def parse(arguments: Sequence[str] | None = None) -> tuple[BackendSpec, bool]:
    """The spec that the command line describes, and whether the network around is trusted."""
    parser = argparse.ArgumentParser(prog="python -m backends.torchserve", description=__doc__)
    for name in ("http", "grpc", "management"):
        parser.add_argument(f"--{name}", required=True, metavar="HOST:PORT")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="default: a free port of loopback")
    parser.add_argument("--model", action="append", required=True, type=served_model, metavar="NAME=PATH")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads per worker")
    parser.add_argument("--workers", type=int, default=1, help="workers per model")
    parser.add_argument("--max-batch-size", type=int, default=1, help="1 switches batching off")
    parser.add_argument("--max-wait-ms", type=float, default=0.0, help="the longest a request waits for a full batch")
    parser.add_argument("--job-queue", type=int, default=1000, help="requests that may wait, per model")
    parser.add_argument("--run-dir", default=".abgate/run")
    parser.add_argument(
        "--open-inside-private-network",
        action="store_true",
        help="ask nobody for a token on addresses outside loopback; the API that loads models stays closed",
    )
    given = parser.parse_args(arguments)
    spec = BackendSpec(
        name="torchserve",
        kind="torchserve",
        http=given.http,
        grpc=given.grpc,
        management=given.management,
        metrics=given.metrics,
        models=tuple(given.model),
        threads=given.threads,
        workers=given.workers,
        batching=Batching(given.max_batch_size, given.max_wait_ms),
        run_dir=given.run_dir,
        job_queue=given.job_queue,
    )
    return spec, given.open_inside_private_network


def main() -> None:
    """Plan, then exec java."""
    spec, private = parse()
    command = plan(spec, token_authorization=False if private else None)
    os.chdir(command.cwd or ".")
    os.execve(command.argv[0], command.argv, command.env)


if __name__ == "__main__":
    main()
