"""`python -m loadtest.points JOB.json`: run one point; its files appear beside the job.

Told on standard output, a JSON line each: that everything is ready, then the progress. Heard on standard input: `begin
<wall clock ns>`, and `stop`, which ends the window early. When standard input ends the process does, at once: nobody waits
for it any more. `--self-test` measures the generator itself. Exit codes: 0 written, 3 a spec that cannot be run (the
problems on stderr), 4 nobody waited.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from gateway.errors import ConfigError
from gateway.protocol.signature_file import SignatureError
from loadtest.points.files import load_job
from loadtest.points.priority import step_forward
from loadtest.points.process import Parent, perform


def _listen(parent: Parent) -> None:
    """Read what the parent says; not through sys.stdin, whose lock would hold up the interpreter's end."""
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            word, _, value = line.partition(b" ")
            if word == b"begin":
                parent.began(int(value))
            elif word == b"stop":
                parent.stopped()
    os._exit(4)


def _tell(told: dict[str, Any]) -> None:
    """A line for the parent; one that does not read must not hold up the load, and misses lines."""
    with suppress(BlockingIOError):
        os.write(1, orjson.dumps(told) + b"\n")  # shorter than PIPE_BUF: whole or not at all


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
    if not os.isatty(1):  # a terminal is the shell's too
        os.set_blocking(1, False)
    parent = Parent(_tell)
    threading.Thread(target=_listen, args=(parent,), daemon=True).start()
    try:
        spec = load_job(job)
        note = step_forward(timed=spec.load.kind == "open")
        perform(spec, job.parent, parent, notes=(note,))
    except (ConfigError, SignatureError) as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
