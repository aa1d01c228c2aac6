"""`python -m loadtest.points JOB.json`: run one point; its files appear beside the job.

Progress goes to standard output, a JSON line each; the process ends at once when its standard input does, which is how it
notices that nobody waits for it any more. `--self-test` measures the generator itself.

Exit codes: 0 written, 3 a spec that cannot be run (the problems on stderr).
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import orjson

from gateway.errors import ConfigError
from gateway.protocol.signature_file import SignatureError
from loadtest.points.files import load_job
from loadtest.points.process import perform


def _die_with_the_parent() -> None:
    while os.read(0, 4096):  # not through sys.stdin, whose lock would hold up the interpreter's end
        pass
    os._exit(4)


def _tell(elapsed: float, begun: int, under_way: int) -> None:
    line = orjson.dumps({"elapsed": elapsed, "begun": begun, "under_way": under_way})
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def main(arguments: list[str]) -> int:
    """Run the job named by the only argument."""
    if len(arguments) != 1:
        print("usage: python -m loadtest.points JOB.json | --self-test", file=sys.stderr)
        return 3
    if arguments[0] == "--self-test":
        from rich.console import Console

        from loadtest.points.self_test import self_test

        self_test(Console(width=110))
        return 0
    job = Path(arguments[0])
    if not sys.stdin.isatty():
        threading.Thread(target=_die_with_the_parent, daemon=True).start()
    try:
        perform(load_job(job), job.parent, _tell)
    except (ConfigError, SignatureError) as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
