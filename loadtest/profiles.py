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
from loadtest.arrivals import Plan, Step, ramp, spike

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
    """`shape: soak` is short for `shape: {kind: soak}`, and `shape: {steps: [...]}` is of the kind steps."""
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "steps", **value} if isinstance(value, dict) and value.get("steps") is not None else value


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepModel(_Closed):
    """One step of a stepped shape: so many users for so long."""

    duration: PositiveSeconds
    users: Count


class Shape(_Closed):
    """The course of users in the measurement window; each kind has the keys of _SHAPES, the others none.

    constant and soak: the profile's users for its duration (a soak's is long: what grows, leaks or drifts shows); steps:
    follow each other; ramp: from one number of users to another in the duration, one user at a time; spike: base users, but
    peak from `at` on, `for` so long, all within the duration.
    """

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["constant", "steps", "ramp", "spike", "soak"] = "constant"
    steps: tuple[StepModel, ...] | None = None
    from_: Annotated[Count | None, Field(alias="from")] = None
    to: Count | None = None
    base: Count | None = None
    peak: Count | None = None
    at: Seconds | None = None
    for_: Annotated[PositiveSeconds | None, Field(alias="for")] = None
    duration: PositiveSeconds | None = None

    def course(self, users: int, duration: float) -> tuple[Step, ...]:
        """The window's steps; users and duration are the profile's, which constant and soak go by. Only of a valid shape."""
        if self.steps is not None:
            return tuple(Step(step.users, step.duration) for step in self.steps)
        if self.kind == "ramp":
            return ramp(self.from_ or 0, self.to or 0, self.duration or 0.0)
        if self.kind == "spike":
            return spike(self.base or 0, self.peak or 0, self.at or 0.0, self.for_ or 0.0, self.duration or 0.0)
        return (Step(users, duration),)

    def problems(self) -> list[str]:
        """Every key that is missing, and every one that means nothing in this kind."""
        wanted = _SHAPES[self.kind]
        found = []
        for name, field in type(self).model_fields.items():
            key, given = field.alias or name, getattr(self, name) is not None
            if key in wanted and not given:
                found.append(f"shape.{key}: is missing; a shape of the kind {self.kind} needs {', '.join(wanted)}")
            elif given and key not in (*wanted, "kind"):
                found.append(f"shape.{key}: means nothing in a shape of the kind {self.kind}; leave it out")
        if self.kind == "steps" and self.steps == ():
            found.append("shape.steps: at least one step is needed")
        if self.kind == "spike" and not found:
            end = (self.at or 0.0) + (self.for_ or 0.0)
            if end > (self.duration or 0.0):
                found.append(f"shape.for: the spike ends after {end:g} s, the shape after {self.duration:g} s")
            if (self.peak or 0) <= (self.base or 0):
                found.append(f"shape.peak: a spike's {self.peak} users must be more than its base of {self.base}")
        return found


# what each kind of shape needs; a duration of its own takes the place of the profile's
_SHAPES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "soak": (),
    "steps": ("steps",),
    "ramp": ("from", "to", "duration"),
    "spike": ("base", "peak", "at", "for", "duration"),
}


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
    """One load test. Durations in seconds; rate in requests a second over all users, null: as fast as answers come."""

    name: str = ""
    model: str
    users: Count | None = None
    spawn_rate: Annotated[float, Field(gt=0)] | None = None
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
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
        """The course of users over time, for the load shape and the pacing."""
        steps = self.shape.course(self.users or 0, self.duration or 0.0)
        most = max(step.users for step in steps)
        return Plan(self.warmup, steps, self.spawn_rate or float(most), self.rate)

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
    problems += profile.shape.problems()
    if _SHAPES[profile.shape.kind]:
        said = "the shape's steps say it" if profile.shape.kind == "steps" else "the shape says it"
        problems += [f"{key}: {said}; leave it out" for key in ("users", "duration") if getattr(profile, key)]
    else:
        problems += [f"{key}: is missing" for key in ("users", "duration") if getattr(profile, key) is None]
    if not problems:
        problems += _plan_problems(profile)
    header = profile.units.header
    if header is not None and not _HEADER.fullmatch(header):
        problems.append(f"units.header: {header!r} is no header name in lower case, such as x-user-id")
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
