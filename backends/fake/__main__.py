"""python -m backends.fake --http 127.0.0.1:0 --grpc 127.0.0.1:0 [--script JSON]: run the fake until SIGTERM or Ctrl-C.

The script is an object with any of mode, delay_ms, models (names; all when absent), output, width, version. The first line of
standard output is JSON with the addresses.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading

from backends.fake.behaviour import Shape
from backends.fake.server import FakeBackend


def main() -> None:
    """Parse, start, wait for a signal, stop."""
    parser = argparse.ArgumentParser(prog="python -m backends.fake", description=__doc__)
    parser.add_argument("--http", default="127.0.0.1:0")
    parser.add_argument("--grpc", default="127.0.0.1:0")
    parser.add_argument("--script", type=json.loads, default={})
    given = parser.parse_args()
    script = dict(given.script)
    start = {key: script.pop(key) for key in ("mode", "delay_ms") if key in script}
    script["models"] = tuple(script.get("models", ()))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with FakeBackend(given.http, given.grpc, Shape(**script), **start) as fake:
        print(json.dumps({"http": fake.http, "grpc": fake.grpc}), flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
