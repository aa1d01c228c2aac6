"""The timer of open loops keeps its time with timerfd and without, and is never early."""

import asyncio
from time import monotonic_ns

import pytest

from loadtest.points.timer import Timer


@pytest.mark.parametrize("exact", [True, False])
async def test_calls_come_once_each_and_never_early(exact: bool) -> None:
    loop = asyncio.get_running_loop()
    called: list[int] = []
    done = asyncio.Event()
    begin = monotonic_ns()
    dues = [begin - 5, begin + 1_000_000, begin + 1_200_000, begin + 9_000_000]

    def call() -> None:
        called.append(monotonic_ns())
        if len(called) < len(dues):
            timer.at(dues[len(called)])
        else:
            done.set()

    timer = Timer(loop, call, exact)
    timer.at(begin + 60_000_000_000)
    timer.at(dues[0])  # replaces it
    assert called == []
    await asyncio.wait_for(done.wait(), 10)
    timer.close()
    assert all(when >= due for when, due in zip(called, dues, strict=True))
