"""Run as a script beside the supervisor: when the supervisor dies by any means, kill every process group it left.

It reads lines "add <group>" and "del <group>" from standard input; the end of input is the supervisor's death, kill -9 included.
The kernel's parent-death signal reaches only the servers themselves, not the workers they start; this reaches those too.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Keep the set of living groups until the input ends, then kill what is left of them."""
    groups: set[int] = set()
    for line in sys.stdin:
        verb, group = line.split()
        (groups.add if verb == "add" else groups.discard)(int(group))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
