"""python -m backends.torchserve.health HOST:PORT MODEL...: exit 0 when all workers of the models are READY, else 1 with the reason.

For a container's health check; the address is the management one. /ping would say healthy while workers crash-loop.
"""

from __future__ import annotations

import sys
from pathlib import Path

from backends.readiness import ask, management_token, unready_workers


def unready(address: str, model: str) -> str | None:
    """None when the model has a worker and all are READY, else why not; a token is read from TorchServe's folder below here."""
    folder = next((str(file.parent) for file in Path().glob("**/key_file.json")), None)
    found, reason = ask(address, f"/models/{model}", management_token(folder))
    return reason if found is None else unready_workers(found, 1)


def main(arguments: list[str]) -> int:
    """Ask for every model; returns the exit code."""
    if len(arguments) < 2:
        print("usage: python -m backends.torchserve.health HOST:PORT MODEL...", file=sys.stderr)
        return 1
    address, *models = arguments
    reasons = [f"{model}: {reason}" for model in models if (reason := unready(address, model)) is not None]
    print("\n".join(reasons) or "ready")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
