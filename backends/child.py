"""Run as a script in the place of a server: tie the process to its supervisor and its cores, then become the server.

Usage: child.py <supervisor pid> <cores, comma separated, or -> <program> [argument...]. Standard library only, started with
-I -S, and nothing may run after exec. A preexec function would do the same inside the supervisor, whose threads make that unsafe.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Ask the kernel for SIGKILL when the supervisor dies, set the affinity, exec."""
    parent, cores, *program = argv
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(parent):  # it died before the line above could count
        sys.exit("the supervisor is gone")
    if cores != "-":
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
