"""The generator before what it loads: where the machine lets it, so that arrivals go out when they are due.

A server that keeps every core busy else makes its own arrivals late, and its load gentler. The generator uses a small part
of a core, the same for every arm; what it runs at is told with the point.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICE = -10
REAL_TIME = 1


def step_forward(*, timed: bool) -> str:
    """Raise this process's priority; returns what it runs at, for the point's notes.

    timed: an open loop, which sleeps until its next arrival and must wake then: in real time (sched(7)), where the kernel
    still leaves a share to others. A session of its own is a group to Linux's autogroup scheduling, and niceness counts only
    within it: the group's own is raised as well (proc(5)). Without the right to it nothing changes.
    """
    with suppress(OSError, ValueError):
        if os.getsid(0) == os.getpid():  # else the group is the terminal's too
            Path("/proc/self/autogroup").write_text(str(NICE))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if timed and hasattr(os, "sched_setscheduler"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REAL_TIME))
            return "the generator ran in real time"
    return f"the generator ran at niceness {os.getpriority(os.PRIO_PROCESS, 0)}"
