"""When first requests have done their work, and what compilers' threads say of it."""

from __future__ import annotations

import os
import threading

import pytest

from loadtest.lab.priming import settled
from loadtest.lab.threads import compilers, processes, spent


@pytest.mark.parametrize(
    ("costs", "compiling", "done"),
    [
        ([], [], False),
        ([5.0], [], False),
        ([5.0, 4.0], [], False),  # a fifth less work an answer: still getting faster
        ([5.0, 4.0, 3.9], [], True),
        ([5.0, 5.5], [], True),
        ([5.5, 2.7, 2.9], [0.47, 0.54, 0.58], False),  # no cheaper, yet Java compiles: it will be
        ([5.5, 2.7, 2.9, 2.8], [0.47, 0.54, 0.58, 0.04], False),  # they may only rest
        ([5.5, 2.7, 2.9, 2.8, 2.8], [0.47, 0.54, 0.58, 0.04, 0.02], True),
        ([5.5], [0.01], False),
    ],
)
def test_first_requests_end_when_a_server_has_stopped_working_on_itself(
    costs: list[float], compiling: list[float], done: bool
) -> None:
    assert settled(costs, compiling) is done


def test_what_compilers_spent_is_the_sum_over_threads_that_are_still_there() -> None:
    before = {(1, 10): 2.0, (1, 11): 5.0}
    after = {(1, 10): 2.5, (1, 12): 0.25}  # 11 ended, 12 is new
    assert spent(before, after) == 0.75


def test_compilers_are_told_by_their_threads_names() -> None:
    done, named = threading.Event(), threading.Event()

    def compile_for_ever() -> None:
        with open("/proc/thread-self/comm", "w") as comm:
            comm.write("C2 CompilerThre")
        named.set()
        while not done.wait(0.001):
            sum(range(10_000))

    thread = threading.Thread(target=compile_for_ever)
    thread.start()
    try:
        assert named.wait(10)
        first = compilers([os.getpid()])  # without children: other tests' servers may be among them
        assert [pid for pid, _ in first] == [os.getpid()]
        assert os.getpid() in processes([os.getpid()])
        while spent(first, compilers([os.getpid()])) == 0.0:  # wait for the thing: a tick of the processor's clock
            pass
    finally:
        done.set()
        thread.join()
    assert compilers([os.getpid()]) == {}
    assert processes([2**22 + 1]) == []
