"""One stack for the whole contract suite: starting two real servers takes longer than all of its cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.stack import Stack, start


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running `abgate up`; its end is checked: within 10 s, exit code 0, no process left."""
    running = start(tmp_path_factory.mktemp("stack"))
    yield running
    took, left, code = running.stop()
    assert (took < 10, left, code) == (True, [], 0), running.log()
