"""Which tests run together and which first, when several processes share them (`-n 2 --dist loadfile`).

Files that share servers stay in one process, or each process would start those servers. What starts processes comes first: xdist
by itself begins with the files of most tests, and ends with one process waiting for the other's real servers.
"""

from __future__ import annotations

from typing import Any

import pytest

FAMILIES = ("tests/contract/", "tests/integration/test_embedded_")


def family(nodeid: str) -> str:
    """What a test's process is chosen by: its file, or the family its file belongs to."""
    file = nodeid.partition("::")[0]
    return next((name for name in FAMILIES if file.startswith(name)), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real servers first, then whatever else is not of one process; the order within a file stays."""
    real = {family(item.nodeid) for item in items if item.get_closest_marker("servers")}

    def place(item: pytest.Item) -> tuple[bool, bool]:
        name = family(item.nodeid)
        return name not in real, not name.startswith("tests/integration/")

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out families in the order above; another --dist than loadfile is left to xdist."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class FamilyScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return family(nodeid)

    config.option.loadscopereorder = False
    return FamilyScheduling(config, log)
