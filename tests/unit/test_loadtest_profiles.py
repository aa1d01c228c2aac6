"""A profile says everything that is wrong with it at once, and only what is right passes."""

from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from loadtest import profiles
from loadtest.arrivals import Step

GOOD: dict[str, Any] = {"model": "m", "users": 4, "duration": "20s", "mix": {"tfs-rest": 0.5, "tfs-grpc": 0.5}}


def problems_of(**changes: Any) -> list[str]:
    document = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(ConfigError) as caught:
        profiles.parse(document, source="p.yaml")
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"users": 0}, "p.yaml: users: Input should be greater than or equal to 1"),
        ({"users": ...}, "p.yaml: users: is missing"),
        ({"duration": ...}, "p.yaml: duration: is missing"),
        ({"model": ...}, "p.yaml: model: is missing"),
        ({"usres": 3}, "p.yaml: usres: unknown key"),
        (
            {"duration": "20x"},
            "p.yaml: duration: '20x' is no duration; write seconds as a number, or 500ms, 20s, 2m, 1h",
        ),
        ({"duration": True}, "p.yaml: duration: a duration is a number of seconds or a text such as 20s"),
        ({"mix": {"http": 1}}, "p.yaml: mix.http: Input should be 'tfs-rest' or 'tfs-grpc'"),
        ({"mix": {"tfs-rest": 0}}, "p.yaml: mix: at least one protocol needs a weight above 0"),
        ({"rows": []}, "p.yaml: rows: at least one choice is needed"),
        ({"rows": [{"rows": 1, "wieght": 2}]}, "p.yaml: rows.0.wieght: unknown key"),
        ({"units": {"population": 9999}}, "p.yaml: units.population: Input should be greater than or equal to 10000"),
        (
            {"units": {"header": "X-User"}},
            "p.yaml: units.header: 'X-User' is no header name in lower case, such as x-user-id",
        ),
        ({"check": "labels"}, "p.yaml: check.kind: Input should be 'label', 'reference' or 'off'"),
        ({"users": 1}, "p.yaml: users: 1 cannot cover every protocol of mix; each needs at least one user"),
        (
            {"spawn_rate": 0.5, "warmup": 2},
            "p.yaml: spawn_rate: 4 users take 8 s to start, longer than the warm-up of 2 s; "
            "the measurement must begin with all of them",
        ),
        (
            {"shape": {"steps": [{"duration": 5, "users": 2}]}, "users": ...},
            "p.yaml: duration: the shape's steps say it; leave it out",
        ),
    ],
)
def test_one_problem_is_named_with_its_place(changes: dict[str, Any], problem: str) -> None:
    assert problems_of(**changes) == [problem]


def test_all_problems_come_at_once() -> None:
    found = problems_of(users="many", timeout=0, colour="red", check={"every": 0})
    assert [line.split(": ")[1] for line in found] == ["users", "check.every", "timeout", "colour"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("20s", 20.0), ("2m", 120.0), ("1h", 3600.0), ("1.5 s", 1.5), (7, 7.0)]
)
def test_durations(text: Any, seconds: float) -> None:
    assert profiles.parse({**GOOD, "duration": text}, source="p").duration == seconds


def test_short_forms_mean_the_long_ones() -> None:
    short = profiles.parse({**GOOD, "rows": 8, "check": "off", "shape": "constant"}, source="p")
    long = profiles.parse(
        {**GOOD, "rows": [{"rows": 8, "weight": 1}], "check": {"kind": "off"}, "shape": {}}, source="p"
    )
    steps = {"steps": [{"duration": 5, "users": 2}]}
    bare = {key: value for key, value in GOOD.items() if key not in ("users", "duration")}
    assert profiles.parse({**bare, "shape": steps}, source="p").shape.kind == "steps"
    assert short == long
    assert profiles.parse({**GOOD, "check": False}, source="p").check.kind == "off"  # YAML reads a bare off as false


def test_the_mix_becomes_shares_and_a_zero_weight_gets_no_users() -> None:
    assert profiles.parse({**GOOD, "mix": {"tfs-rest": 3, "tfs-grpc": 1}}, source="p").protocols == {
        "tfs-rest": 0.75,
        "tfs-grpc": 0.25,
    }
    assert profiles.parse({**GOOD, "mix": {"tfs-rest": 3, "tfs-grpc": 0}}, source="p").protocols == {"tfs-rest": 1.0}


def test_overrides_replace_values_and_none_keeps_them() -> None:
    profile = profiles.parse(GOOD, source="p", overrides={"users": 9, "duration": None, "rate": 50})
    assert (profile.users, profile.duration, profile.rate) == (9, 20.0, 50.0)


@pytest.mark.parametrize(
    ("changes", "share"),
    [({}, 0.9), ({"check": "reference"}, 1.0), ({"limits": {"correct": 0.5}}, 0.5)],
)
def test_how_many_answers_must_be_right(changes: dict[str, Any], share: float) -> None:
    assert profiles.parse({**GOOD, **changes}, source="p").min_correct == share


def test_the_shipped_profiles_are_valid() -> None:
    plans = {name: profiles.load(profiles.find(name)).plan for name in profiles.shipped()}
    assert plans["demo"].steps == (Step(8, 20.0),)
    assert plans["smoke"].warmup + plans["smoke"].duration == 5.0
    assert [step.users for step in plans["mlp-batching"].steps] == [2, 8, 16]
    assert [step.users for step in plans["ramp"].steps] == list(range(2, 33))
    assert plans["ramp"].duration == pytest.approx(60.0)
    assert plans["spike"].steps == (Step(4, 20.0), Step(32, 5.0), Step(4, 35.0))
    assert plans["soak"].steps == (Step(8, 3600.0),)
    assert [step.users for step in plans["steps"].steps] == [2, 4, 8, 16]


def test_a_profile_that_is_nowhere_names_those_that_are() -> None:
    with pytest.raises(ConfigError) as caught:
        profiles.find("dmeo")
    assert "demo, mlp-batching, open-poisson, open-spike, ramp, smoke, soak, spike, steps" in str(caught.value)


@pytest.mark.parametrize("text", ["- a", "a: [", "7"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"p\.yaml"):
        profiles.load(path)


RAMP = {"kind": "ramp", "from": 2, "to": 5, "duration": "8s"}
SPIKE = {"kind": "spike", "base": 2, "peak": 9, "at": "10s", "for": "2s", "duration": "1m"}


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        (RAMP, (Step(2, 2.0), Step(3, 2.0), Step(4, 2.0), Step(5, 2.0))),
        ({**RAMP, "from": 3, "to": 2}, (Step(3, 4.0), Step(2, 4.0))),
        ({**RAMP, "from": 4, "to": 4}, (Step(4, 8.0),)),
        (SPIKE, (Step(2, 10.0), Step(9, 2.0), Step(2, 48.0))),
        ({**SPIKE, "at": 0}, (Step(9, 2.0), Step(2, 58.0))),
        ({**SPIKE, "at": "58s"}, (Step(2, 58.0), Step(9, 2.0))),
    ],
)
def test_shapes_are_plans_of_steps(shape: dict[str, Any], steps: tuple[Step, ...]) -> None:
    profile = profiles.parse({"model": "m", "mix": {"tfs-rest": 1}, "shape": shape, "warmup": 1}, source="p")
    assert profile.plan.steps == steps
    told = profile.model_dump(mode="json", by_alias=True)
    assert profiles.parse(told, source="p") == profile
    assert told["shape"].keys() >= shape.keys()


def test_a_soak_goes_by_the_profiles_own_users_and_duration() -> None:
    assert profiles.parse({**GOOD, "shape": "soak"}, source="p").plan.steps == (Step(4, 20.0),)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ("wave", "shape.kind: Input should be 'constant', 'steps', 'ramp', 'spike' or 'soak'"),
        ({**RAMP, "to": None}, "shape.to: is missing; a shape of the kind ramp needs from, to, duration"),
        ({**RAMP, "at": "1s"}, "shape.at: means nothing in a shape of the kind ramp; leave it out"),
        ({**RAMP, "from": 0}, "shape.from: Input should be greater than 0"),
        ({**SPIKE, "for": "51s"}, "shape.for: the spike ends after 61 s, the shape after 60 s"),
        ({**SPIKE, "peak": 2}, "shape.peak: a spike's peak of 2 must be more than its base of 2"),
        ({"kind": "steps", "steps": []}, "shape.steps: at least one step is needed"),
        ({"kind": "steps"}, "shape.steps: is missing; a shape of the kind steps needs steps"),
        ({"kind": "soak", "duration": "1h"}, "shape.duration: means nothing in a shape of the kind soak; leave it out"),
    ],
)
def test_a_shape_that_cannot_be_is_named_with_its_place(shape: Any, problem: str) -> None:
    own = ("soak",) if isinstance(shape, dict) and shape["kind"] == "soak" else ()
    changes: dict[str, Any] = {"shape": shape, "mix": {"tfs-rest": 1}}
    changes |= {} if own else {"users": ..., "duration": ...}
    assert problems_of(**changes) == [f"p.yaml: {problem}"]


def test_the_users_of_a_ramp_are_not_said_twice() -> None:
    assert problems_of(shape=RAMP, duration=...) == ["p.yaml: users: the shape says it; leave it out"]


OPEN: dict[str, Any] = {"users": ..., "arrivals": "poisson", "rate": 100}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"users": 4}, "p.yaml: users: an open loop has no users; leave it out, or leave out arrivals"),
        ({"rate": ...}, "p.yaml: rate: is missing"),
        (
            {"shape": {"kind": "ramp", "from": 1, "to": 9, "duration": 4}},
            "p.yaml: duration: the shape says it; leave it out",
        ),
        ({"arrivals": "uniform"}, "p.yaml: arrivals: Input should be 'poisson', 'constant' or 'captured'"),
        ({"arrivals": "captured"}, "p.yaml: replay: a capture is sent with arrivals: captured, and only with it"),
        ({"replay": "x"}, "p.yaml: replay: a capture is sent with arrivals: captured, and only with it"),
        ({"rate": 1e9}, "p.yaml: 25000000000 arrivals are more than 20000000; lower the rate or shorten the run"),
        (
            {"rate": ..., "duration": ..., "shape": {"steps": [{"duration": 5, "users": 2}]}},
            "p.yaml: shape.steps: each needs a rate and no users, as there are arrivals",
        ),
    ],
)
def test_an_open_loop_has_rules_of_its_own(changes: dict[str, Any], problem: str) -> None:
    assert problem in problems_of(**{**OPEN, **changes})


def test_users_take_no_course_of_rates() -> None:
    course = {"kind": "spike", "base": 1.5, "peak": 2, "at": 1, "for": 1, "duration": 3}
    assert problems_of(shape=course, users=..., duration=...) == [
        "p.yaml: shape.base: 1.5 is no number of users; a rate needs arrivals: poisson or constant"
    ]
    assert (
        "rate needs arrivals" in problems_of(shape={"steps": [{"duration": 5, "rate": 2}]}, users=..., duration=...)[0]
    )


@pytest.mark.parametrize(
    ("shape", "course"),
    [
        ({"steps": [{"duration": "2s", "rate": 5}, {"duration": 3, "rate": 9}]}, [(2, 5, 5), (3, 9, 9)]),
        ({"kind": "ramp", "from": 1.5, "to": 9, "duration": 4}, [(4, 1.5, 9)]),
        (
            {"kind": "spike", "base": 1, "peak": 9, "at": 4, "for": 2, "duration": "9s"},
            [(4, 1, 1), (2, 9, 9), (3, 1, 1)],
        ),
    ],
)
def test_a_shape_is_a_course_of_rates(shape: dict[str, Any], course: list[tuple[float, float, float]]) -> None:
    document = {**GOOD, "arrivals": "constant", "shape": shape, "warmup": 1}
    profile = profiles.parse({key: document[key] for key in document if key not in ("users", "duration")}, source="p")
    assert [(part.seconds, part.from_rate, part.to_rate) for part in profile.course] == course
    assert profile.plan.duration == profile.seconds == sum(part[0] for part in course)
    assert (
        profiles.Profile.model_validate(profile.model_dump(mode="json", by_alias=True)) == profile
    )  # as it goes to run.json and back
