"""Weights that outlive the process: what beats what, when a phase begins, and what a broken file is worth."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import ConfigError, RequestError
from gateway.experiments.model import ArmSpec, Experiment, ModelSpec, Snapshot
from gateway.experiments.state import State, changed, from_dict, merge

AB = Experiment(id="e", salt="s", unit_header="x-user-id", allow_forced_arm=True)


def spec(a: int, b: int, experiment: Experiment = AB, name: str = "m") -> ModelSpec:
    return ModelSpec(name, (ArmSpec("a", "ts", a, "m"), ArmSpec("b", "tf", b, "m")), experiment)


def weights(snapshot: Snapshot, model: str = "m") -> dict[str, int]:
    return {arm.name: arm.weight for arm in snapshot.models[model].arms}


def test_a_first_start_takes_the_yaml_as_revision_1() -> None:
    snapshot, state = merge({"m": spec(50, 50)}, State())
    assert (snapshot.revision, weights(snapshot), snapshot.models["m"].phase) == (1, {"a": 50, "b": 50}, 1)
    assert state.models["m"].source == "config"


def test_a_restart_without_a_change_changes_nothing() -> None:
    first = merge({"m": spec(50, 50)}, State())
    assert merge({"m": spec(50, 50)}, from_dict(first[1].to_dict(), "f")) == first


def test_admin_weights_survive_a_restart_until_the_yaml_weights_change() -> None:
    snapshot, state = merge({"m": spec(50, 50)}, State())
    snapshot = snapshot.with_weights("m", {"a": 90, "b": 10})
    state = changed(state, snapshot, "m")
    again, kept = merge({"m": spec(50, 50)}, from_dict(state.to_dict(), "f"))
    assert (again.revision, weights(again), again.models["m"].phase) == (2, {"a": 90, "b": 10}, 2)
    assert kept.models["m"].source == "state"
    edited, state = merge({"m": spec(40, 60)}, kept)
    assert (edited.revision, weights(edited), edited.models["m"].phase) == (3, {"a": 40, "b": 60}, 3)
    assert state.models["m"].source == "config"


def test_a_kill_survives_a_restart_and_new_weights_end_it() -> None:
    snapshot, state = merge({"m": spec(50, 50)}, State())
    snapshot = snapshot.kill("m", "b")
    state = changed(state, snapshot, "m")
    again, _ = merge({"m": spec(50, 50)}, from_dict(state.to_dict(), "f"))
    assert weights(again) == {"a": 0, "b": 1}
    assert again.models["m"].killed == "b"
    assert again.kill("m", "b") is again
    assert again.with_weights("m", {"a": 1, "b": 1}).models["m"].killed is None


def test_another_salt_begins_a_phase_and_keeps_the_weights() -> None:
    snapshot, state = merge({"m": spec(50, 50)}, State())
    state = changed(state, snapshot.with_weights("m", {"a": 90, "b": 10}), "m")
    again, _ = merge({"m": spec(50, 50, replace(AB, salt="t"))}, state)
    assert (again.revision, weights(again), again.models["m"].phase) == (3, {"a": 90, "b": 10}, 3)


def test_a_change_of_one_model_leaves_the_others_phase() -> None:
    other = replace(AB, id="o")
    _, state = merge({"m": spec(50, 50), "n": spec(1, 1, other, "n")}, State())
    snapshot, _ = merge({"m": spec(50, 50), "n": spec(1, 2, other, "n")}, state)
    assert (snapshot.revision, snapshot.models["m"].phase, snapshot.models["n"].phase) == (2, 1, 2)


def test_a_model_that_goes_and_comes_back_starts_anew() -> None:
    _, state = merge({"m": spec(50, 50)}, State())
    state = changed(state, merge({"m": spec(50, 50)}, state)[0].kill("m", "a"), "m")
    _, without = merge({}, state)
    back, _ = merge({"m": spec(50, 50)}, without)
    assert weights(back) == {"a": 50, "b": 50}
    assert back.models["m"].phase > state.models["m"].phase


def test_arms_that_are_not_the_kept_ones_take_the_yaml() -> None:
    _, state = merge({"m": spec(50, 50)}, State())
    three = replace(spec(50, 50), arms=(*spec(50, 50).arms, ArmSpec("c", "tf", 0, "m")))
    snapshot, _ = merge({"m": three}, state)
    assert weights(snapshot) == {"a": 50, "b": 50, "c": 0}


GOOD: dict[str, Any] = merge({"m": spec(50, 50)}, State())[1].to_dict()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("format",), 2, "format must be 1"),
        (("revision",), "1", "revision must be a whole number"),
        (("revision",), None, "revision must be a whole number"),
        (("models",), [], "no state file"),
        (("models", "m", "weights"), {"a": -1}, "m.weights.a must be a whole number"),
        (("models", "m", "weights"), {"a": 0}, "must not all be 0"),
        (("models", "m", "source"), "else", "source must be config or state"),
        (("models", "m", "killed"), "z", "killed names no arm"),
        (("models", "m"), {}, "'weights' is missing"),
    ],
)
def test_a_broken_state_file_is_refused_rather_than_guessed_at(
    place: tuple[str, ...], value: object, words: str
) -> None:
    import copy

    document = copy.deepcopy(GOOD)
    target = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(ConfigError) as caught:
        from_dict(document, "state.json")
    assert words in caught.value.problems[0]
    assert caught.value.problems[0].startswith("state.json: ")


@pytest.mark.parametrize(
    ("model", "wanted", "kind"),
    [
        ("x", {"a": 1, "b": 1}, "not_found"),
        ("m", {"a": 1}, "invalid_argument"),
        ("m", {"a": 1, "b": 1, "c": 1}, "invalid_argument"),
        ("m", {"a": 0, "b": 0}, "invalid_argument"),
        ("m", {"a": -1, "b": 2}, "invalid_argument"),
        ("m", {"a": True, "b": 2}, "invalid_argument"),
    ],
)
def test_weights_that_do_not_fit_are_refused(model: str, wanted: dict[str, int], kind: str) -> None:
    snapshot, _ = merge({"m": spec(50, 50)}, State())
    with pytest.raises(RequestError) as caught:
        snapshot.with_weights(model, wanted)
    assert caught.value.kind == kind


def test_killing_to_an_unknown_arm_or_model_is_refused() -> None:
    snapshot, _ = merge({"m": spec(50, 50)}, State())
    for model, arm in (("m", "z"), ("x", "a")):
        with pytest.raises(RequestError) as caught:
            snapshot.kill(model, arm)
        assert caught.value.kind == "not_found"
