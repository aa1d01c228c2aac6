"""A load test's profile: the schema of its YAML file and how one is found, read and overridden.

Here live the words of a profile and the rules between them; unknown keys are refused and every problem is told at
once. Nothing here opens a socket, reads a clock or knows Locust.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError
from loadtest.arrivals import Plan, Step
from loadtest.points import schedule
from loadtest.points.spec import Load, Segment

Protocol = Literal["tfs-rest", "tfs-grpc"]
SHIPPED = Path(__file__).with_name("profiles")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")


def seconds(value: Any) -> Any:
    """A duration such as 500ms, 20s, 2m or 1h as seconds; numbers are seconds already; raises ValueError otherwise."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if not match:
            raise ValueError(f"{value!r} is no duration; write seconds as a number, or 500ms, 20s, 2m, 1h")
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text such as 20s")
    return value


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=7 * 86400, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=7 * 86400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _as_check(value: Any) -> Any:
    """`check: label` is short for `check: {kind: label}`; YAML reads a bare `off` as false."""
    if value is False:
        value = "off"
    return {"kind": value} if isinstance(value, str) else value


def _as_rows(value: Any) -> Any:
    """`rows: 4` is short for `rows: [{rows: 4}]`."""
    return ({"rows": value},) if isinstance(value, int | str) else value


def _as_shape(value: Any) -> Any:
    """`shape: constant` is a shape without steps."""
    return {} if value == "constant" else value


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StepModel(_Closed):
    """One step of a stepped shape: so many users, or with arrivals so many requests a second, for so long."""

    duration: PositiveSeconds
    users: Count | None = None
    rate: Rate | None = None


class Ramp(_Closed):
    """From one rate to another, linearly."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    from_rate: Annotated[float, Field(ge=0, allow_inf_nan=False, alias="from")]
    to_rate: Annotated[float, Field(ge=0, allow_inf_nan=False, alias="to")]
    duration: PositiveSeconds


class Spike(_Closed):
    """A sudden peak between two stretches of the base rate."""

    base: Rate
    peak: Rate
    before: PositiveSeconds
    during: PositiveSeconds
    after: PositiveSeconds


class Soak(_Closed):
    """A rise from nothing, then one rate for the rest of the duration."""

    rate: Rate
    rise: PositiveSeconds
    duration: PositiveSeconds


class Shape(_Closed):
    """The course over the measurement window: constant without a key, else one of them; all but steps need arrivals."""

    steps: tuple[StepModel, ...] | None = None
    ramp: Ramp | None = None
    spike: Spike | None = None
    soak: Soak | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The keys that are there."""
        return tuple(key for key in ("steps", "ramp", "spike", "soak") if getattr(self, key) is not None)


class RowChoice(_Closed):
    """One possible number of rows a request, and how often it is chosen relative to the others."""

    rows: Annotated[int, Field(ge=1, le=1024)]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class Units(_Closed):
    """The seeded population assignment units are drawn from. header null: the experiment's own unit header."""

    population: Annotated[int, Field(ge=10_000, le=10_000_000)] = 10_000
    draw: Literal["uniform", "zipf"] = "uniform"
    exponent: Annotated[float, Field(gt=0, le=4)] = 1.1
    header: str | None = None


class Check(_Closed):
    """How an answer is judged.

    label: the largest output's place must be the row's label; reference: |got - expected| <= atol + rtol * |expected|
    for every element. output null: the model's only output. every n: one request in n is judged.
    """

    kind: Literal["label", "reference", "off"] = "label"
    output: str | None = None
    rtol: Annotated[float, Field(ge=0)] = 1e-3
    atol: Annotated[float, Field(ge=0)] = 1e-4
    every: Count = 1


class Limits(_Closed):
    """What makes a run fail: the largest share of errors and the smallest share of right answers (null: by check)."""

    errors: Annotated[float, Field(ge=0, le=1)] = 0.01
    correct: Annotated[float, Field(ge=0, le=1)] | None = None


class Targets(_Closed):
    """host:port of the gateway's two listeners; null: the configuration's own."""

    http: str | None = None
    grpc: str | None = None


class Profile(_Closed):
    """One load test. Durations in seconds; rate in requests a second over all users, null: as fast as answers come.

    arrivals: poisson or constant makes it an open loop: requests go out when a schedule says, whatever comes back, and at
    most `outstanding` are under way; there are no users then. captured: the requests of the capture `replay`, at their times
    divided by speed; the warm-up is its beginning.
    """

    name: str = ""
    model: str
    users: Count | None = None
    spawn_rate: Annotated[float, Field(gt=0)] | None = None
    rate: Rate | None = None
    arrivals: Literal["poisson", "constant", "captured"] | None = None
    replay: Path | None = None
    speed: Annotated[float, Field(gt=0, le=1000)] = 1.0
    outstanding: Annotated[int, Field(ge=1, le=20_000)] = 512
    shape: Annotated[Shape, BeforeValidator(_as_shape)] = Shape()
    duration: PositiveSeconds | None = None
    warmup: Seconds = 5.0
    mix: Annotated[dict[Protocol, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    rows: Annotated[tuple[RowChoice, ...], BeforeValidator(_as_rows)] = (RowChoice(rows=1),)
    payloads: Path | None = None
    split: Literal["test", "train", "all"] = "test"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    units: Units = Units()
    check: Annotated[Check, BeforeValidator(_as_check)] = Check()
    limits: Limits = Limits()
    targets: Targets = Targets()
    timeout: PositiveSeconds = 10.0

    @property
    def protocols(self) -> dict[Protocol, float]:
        """The protocols that get users, with their shares of the users."""
        total = sum(self.mix.values())
        return {protocol: weight / total for protocol, weight in self.mix.items() if weight > 0}

    @property
    def plan(self) -> Plan:
        """The course of users over time, for the load shape and the pacing; of an open loop only its two times."""
        if self.arrivals is not None:
            return Plan(self.warmup, (Step(1, self.seconds),), 1.0, None)
        if self.shape.steps is not None:
            steps = tuple(Step(step.users or 0, step.duration) for step in self.shape.steps)
        else:
            steps = (Step(self.users or 0, self.duration or 0.0),)
        most = max(step.users for step in steps)
        return Plan(self.warmup, steps, self.spawn_rate or float(most), self.rate)

    @property
    def seconds(self) -> float:
        """Length of an open loop's window."""
        return (self.duration or 0.0) if self.replay else sum(part.seconds for part in self.course)

    @property
    def course(self) -> tuple[Segment, ...]:
        """The rates of an open loop over its window; empty without arrivals."""
        shape = self.shape
        if self.arrivals is None or self.replay is not None:
            return ()
        if shape.steps is not None:
            return schedule.steps(*((step.rate or 0.0, step.duration) for step in shape.steps))
        if shape.ramp is not None:
            return schedule.ramp(shape.ramp.from_rate, shape.ramp.to_rate, shape.ramp.duration)
        if (spike := shape.spike) is not None:
            return schedule.spike(spike.base, spike.peak, spike.before, spike.during, spike.after)
        if shape.soak is not None:
            return schedule.soak(shape.soak.rate, shape.soak.duration, shape.soak.rise)
        return schedule.constant(self.rate or 0.0, self.duration or 0.0)

    @property
    def min_correct(self) -> float:
        """The share of judged answers that must be right: a label may be missed by any model, a reference may not."""
        if self.limits.correct is not None:
            return self.limits.correct
        return 0.9 if self.check.kind == "label" else 1.0


def shipped() -> tuple[str, ...]:
    """The names of the profiles that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def find(name: str) -> Path:
    """The file of a profile given by path or by a shipped profile's name; raises ConfigError naming what exists."""
    path = Path(name)
    if path.is_file():
        return path
    if path.name == name and not path.suffix and (SHIPPED / f"{name}.yaml").is_file():
        return SHIPPED / f"{name}.yaml"
    raise ConfigError([f"{name}: no such profile; give a file, or one of the shipped profiles {', '.join(shipped())}"])


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read a profile file; overrides replace its values (None: keep); raises ConfigError with every problem."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read as YAML: {error}"]) from error
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: a profile is a mapping of keys to values, not {type(document).__name__}"])
    return parse({"name": path.stem, **document}, source=str(path), overrides=overrides)


def parse(document: Mapping[str, Any], source: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Validate a decoded profile; raises ConfigError with every problem, each with its place."""
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        profile = Profile.model_validate({**document, **given})
    except ValidationError as error:
        raise ConfigError([f"{source}: {_line(item)}" for item in error.errors()]) from error
    problems = _contradictions(profile)
    if problems:
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    return profile


def _line(item: Any) -> str:
    # pydantic names a dict's "[key]" and validators inside the place: those are its words, not the file's
    place = ".".join(str(part) for part in item["loc"] if not re.search(r"[\[(]", str(part)))
    message = {"extra_forbidden": "unknown key", "missing": "is missing"}.get(item["type"], item["msg"])
    return f"{place or 'profile'}: {message.removeprefix('Value error, ')}"


def _contradictions(profile: Profile) -> list[str]:
    """The rules between keys: each broken one with what would be right."""
    problems = []
    if not profile.rows:
        problems.append("rows: at least one choice is needed")
    if sum(profile.mix.values()) <= 0:
        problems.append("mix: at least one protocol needs a weight above 0")
    if len(profile.shape.given) > 1:
        problems.append(f"shape: one of {' and '.join(profile.shape.given)}, not both")
    elif profile.arrivals is not None or profile.replay is not None:
        problems += _open_problems(profile)
    elif profile.shape.given and profile.shape.steps is None:
        problems.append(f"shape.{profile.shape.given[0]}: needs arrivals: poisson or constant")
    elif any(step.users is None or step.rate is not None for step in profile.shape.steps or ()):
        problems.append("shape.steps: each needs users; a rate needs arrivals: poisson or constant")
    elif profile.shape.steps is None:
        problems += [f"{key}: is missing" for key in ("users", "duration") if getattr(profile, key) is None]
    elif not profile.shape.steps:
        problems.append("shape.steps: at least one step is needed")
    else:
        problems += [
            f"{key}: the shape's steps say it; leave it out" for key in ("users", "duration") if getattr(profile, key)
        ]
    if not problems and profile.arrivals is None:
        problems += _plan_problems(profile)
    header = profile.units.header
    if header is not None and not _HEADER.fullmatch(header):
        problems.append(f"units.header: {header!r} is no header name in lower case, such as x-user-id")
    return problems


def _open_problems(profile: Profile) -> list[str]:
    """The rules between the keys of an open loop."""
    shape = profile.shape
    if (profile.replay is None) != (profile.arrivals != "captured"):
        return ["replay: a capture is sent with arrivals: captured, and only with it"]
    problems = [
        f"{key}: an open loop has no users; leave it out, or leave out arrivals"
        for key in ("users", "spawn_rate")
        if getattr(profile, key) is not None
    ]
    if profile.replay is not None:
        problems += ["duration: is missing"] if profile.duration is None else []
        problems += ["check: a captured request has no right answer; use off"] if profile.check.kind != "off" else []
        problems += ["shape: the capture says it; leave it out"] if shape.given else []
        return problems
    if not shape.given:
        problems += [f"{key}: is missing" for key in ("rate", "duration") if getattr(profile, key) is None]
    else:
        problems += [
            f"{key}: the shape says it; leave it out"
            for key in ("rate", "duration")
            if getattr(profile, key) is not None
        ]
    if shape.steps is not None and any(step.rate is None or step.users is not None for step in shape.steps):
        problems.append("shape.steps: each needs a rate and no users, as there are arrivals")
    elif shape.soak is not None and shape.soak.rise >= shape.soak.duration:
        problems.append("shape.soak.rise: must be shorter than the duration")
    elif shape.ramp is not None and not shape.ramp.from_rate + shape.ramp.to_rate:
        problems.append("shape.ramp: one of from and to must be above 0")
    if not problems:
        problems += schedule.problems(Load("open", profile.seconds, profile.warmup, course=profile.course))
    return problems


def _plan_problems(profile: Profile) -> list[str]:
    plan = profile.plan
    problems = []
    fewest = min(step.users for step in plan.steps)
    if fewest < len(profile.protocols):
        problems.append(f"users: {fewest} cannot cover every protocol of mix; each needs at least one user")
    ramp = plan.steps[0].users / plan.spawn_rate
    if ramp > max(profile.warmup, 1.0):
        problems.append(
            f"spawn_rate: {plan.steps[0].users} users take {ramp:g} s to start, longer than the warm-up of "
            f"{profile.warmup:g} s; the measurement must begin with all of them"
        )
    return problems
