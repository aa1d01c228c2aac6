"""The framework processes' frame: messages, errors, and that no child outlives its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from model_store import process

CHILD = """
import os, signal, sys, time
from model_store import child

def add(a, b):
    print("a line of some library")
    child.tell("adding", 0.5)
    return {"sum": a + b}

def fail():
    print("said before")
    sys.exit("said last")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def hang():
    child.tell(str(os.getpid()), 0.0)
    time.sleep(600)

if __name__ == "__main__":
    child.main({"add": add, "fail": fail, "die": die, "hang": hang})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that child processes can run."""
    (tmp_path / "some_process.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "some_process"


def test_a_result_comes_back_and_progress_is_told_on_the_way(module: str) -> None:
    told: list[Any] = []
    result = process.run(module, "add", "digits", lambda *said: told.append(said), a=1, b=2)
    assert result == {"sum": 3}
    assert told == [("digits", "adding", 0.5)]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("fail", "digits: the some_process process (fail) ended with code 1:\n  said before\n  said last"),
        ("die", "digits: the some_process process (die) was killed by signal 9"),
        ("nothing", "KeyError: 'nothing'"),
    ],
)
def test_a_failure_holds_what_the_child_said(module: str, action: str, said: str) -> None:
    with pytest.raises(process.ProcessError) as caught:
        process.run(module, action, "digits", process.silent)
    assert said in str(caught.value)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_the_command_however_that_ends(module: str, how: signal.Signals) -> None:
    # a run in a shell's background hands SIGINT down ignored, and Python then leaves it so
    code = f"""
import signal
from model_store import process
signal.signal(signal.SIGINT, signal.default_int_handler)
process.run({module!r}, "hang", "m", lambda model, step, share: print(step, flush=True))
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.ppid() == parent.pid
        os.kill(parent.pid, how)
        parent.wait(10)
        # another init may leave it as a zombie: ended all the same
        _, alive = psutil.wait_procs([child], timeout=10)
        assert not alive or child.status() == psutil.STATUS_ZOMBIE
