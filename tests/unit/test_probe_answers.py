"""How servers' own words about a model are read: ready or why not, and which versions."""

from typing import Any

import pytest

from gateway.upstream.probe import Seen, read_tfserving, read_torchserve


def torch(*versions: tuple[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {"modelName": "m", "modelVersion": version, "workers": [{"id": "9000", "status": state} for state in states]}
        for version, states in versions
    ]


TORCHSERVE = [
    (torch(("1.0", ["READY"])), None, Seen("", frozenset({"1.0"}))),
    (torch(("1.0", ["READY", "READY"])), "1.0", Seen("", frozenset({"1.0"}))),
    (torch(("1.0", ["READY", "UNLOADING"])), None, Seen("its workers are READY, UNLOADING", frozenset())),
    (torch(("1.0", [])), None, Seen("its workers are not there", frozenset())),
    (torch(("1.0", ["READY"]), ("2.0", ["UNLOADING"])), None, Seen("", frozenset({"1.0"}))),
    (torch(("1.0", ["READY"]), ("2.0", ["UNLOADING"])), "2.0", Seen("its workers are UNLOADING", frozenset({"1.0"}))),
    (torch(("1.0", ["READY"])), "3", Seen("it has no version 3; it has: 1.0", frozenset({"1.0"}))),
    ([], None, Seen("its workers are not there", frozenset())),
]


@pytest.mark.parametrize(("description", "version", "expected"), TORCHSERVE)
def test_torchserve_is_ready_when_all_workers_are(
    description: list[dict[str, Any]], version: str | None, expected: Seen
) -> None:
    assert read_torchserve(description, version) == expected


def tensorflow(*versions: tuple[str, str]) -> dict[str, Any]:
    return {"model_version_status": [{"version": version, "state": state} for version, state in versions]}


TFSERVING = [
    (tensorflow(("1", "AVAILABLE")), None, Seen("", frozenset({"1"}))),
    (tensorflow(("2", "LOADING"), ("1", "AVAILABLE")), None, Seen("", frozenset({"1"}))),
    (tensorflow(("2", "LOADING"), ("1", "AVAILABLE")), "2", Seen("its versions are 2 LOADING", frozenset({"1"}))),
    (tensorflow(("1", "END")), None, Seen("its versions are 1 END", frozenset())),
    (tensorflow(("1", "AVAILABLE")), "7", Seen("it has no version 7; it has: 1", frozenset({"1"}))),
]


@pytest.mark.parametrize(("status", "version", "expected"), TFSERVING)
def test_tensorflow_serving_is_ready_when_a_version_is_available(
    status: dict[str, Any], version: str | None, expected: Seen
) -> None:
    assert read_tfserving(status, version) == expected
