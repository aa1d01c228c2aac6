"""The course of a load over its measurement window: the words of `shape` in a profile, and what they come to.

Here live the kinds and the rules between their keys. PURE. The numbers of a shape are users in a closed loop and requests
a second in an open one (a profile with `arrivals`): the same words, so that the same course can be asked of both.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from loadtest.arrivals import Step, ramp, spike
from loadtest.points import schedule
from loadtest.points.spec import Segment

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*")


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
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Closed(BaseModel):
    """Base of every mapping of a profile: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepModel(Closed):
    """One step: so many users, or with arrivals so many requests a second, for so long."""

    duration: PositiveSeconds
    users: Count | None = None
    rate: Rate | None = None


class Shape(Closed):
    """The course in the measurement window; each kind has the keys of _SHAPES, the others none.

    constant and soak: the profile's users or rate for its duration (a soak's is long: what grows, leaks or drifts shows);
    steps: follow each other; ramp: from one number to another in the duration; spike: base, but peak from `at` on, `for` so
    long, all within the duration.
    """

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["constant", "steps", "ramp", "spike", "soak"] = "constant"
    steps: tuple[StepModel, ...] | None = None
    from_: Annotated[Rate | None, Field(alias="from")] = None
    to: Rate | None = None
    base: Rate | None = None
    peak: Rate | None = None
    at: Seconds | None = None
    for_: Annotated[PositiveSeconds | None, Field(alias="for")] = None
    duration: PositiveSeconds | None = None

    @property
    def owns_course(self) -> bool:
        """Whether it takes the place of the profile's users or rate and duration."""
        return bool(_SHAPES[self.kind])

    def users(self, users: int, duration: float) -> tuple[Step, ...]:
        """A closed loop's steps; users and duration are the profile's, which constant and soak go by. Of a valid shape."""
        if self.steps is not None:
            return tuple(Step(step.users or 0, step.duration) for step in self.steps)
        if self.kind == "ramp":
            return ramp(int(self.from_ or 0), int(self.to or 0), self.duration or 0.0)
        if self.kind == "spike":
            base, peak = int(self.base or 0), int(self.peak or 0)
            return spike(base, peak, self.at or 0.0, self.for_ or 0.0, self.duration or 0.0)
        return (Step(users, duration),)

    def rates(self, rate: float, duration: float) -> tuple[Segment, ...]:
        """An open loop's course; rate and duration are the profile's, which constant and soak go by. Of a valid shape."""
        if self.steps is not None:
            return schedule.steps(*((step.rate or 0.0, step.duration) for step in self.steps))
        whole = self.duration or 0.0
        if self.kind == "ramp":
            return schedule.ramp(self.from_ or 0.0, self.to or 0.0, whole)
        if self.kind == "spike":
            at, length = self.at or 0.0, self.for_ or 0.0
            parts = schedule.spike(self.base or 0.0, self.peak or 0.0, at, length, whole - at - length)
            return tuple(part for part in parts if part.seconds > 0)
        return schedule.constant(rate, duration)

    def problems(self, *, is_open: bool) -> list[str]:
        """Every key that is missing, that means nothing in this kind, or that fits only the other kind of loop."""
        wanted = _SHAPES[self.kind]
        found = []
        for name, field in type(self).model_fields.items():
            key, given = field.alias or name, getattr(self, name)
            if key in wanted and given is None:
                found.append(f"shape.{key}: is missing; a shape of the kind {self.kind} needs {', '.join(wanted)}")
            elif given is not None and key not in (*wanted, "kind"):
                found.append(f"shape.{key}: means nothing in a shape of the kind {self.kind}; leave it out")
            elif key in ("from", "to", "base", "peak") and given is not None and not is_open and given != int(given):
                found.append(
                    f"shape.{key}: {given:g} is no number of users; a rate needs arrivals: poisson or constant"
                )
        return found + self._steps_problems(is_open) + (self._spike_problems() if not found else [])

    def _steps_problems(self, is_open: bool) -> list[str]:
        if self.kind != "steps" or self.steps is None:
            return []
        if not self.steps:
            return ["shape.steps: at least one step is needed"]
        if is_open and any(step.rate is None or step.users is not None for step in self.steps):
            return ["shape.steps: each needs a rate and no users, as there are arrivals"]
        if not is_open and any(step.users is None or step.rate is not None for step in self.steps):
            return ["shape.steps: each needs users; a rate needs arrivals: poisson or constant"]
        return []

    def _spike_problems(self) -> list[str]:
        if self.kind != "spike":
            return []
        found = []
        end = (self.at or 0.0) + (self.for_ or 0.0)
        if end > (self.duration or 0.0):
            found.append(f"shape.for: the spike ends after {end:g} s, the shape after {self.duration:g} s")
        if (self.peak or 0) <= (self.base or 0):
            found.append(f"shape.peak: a spike's peak of {self.peak:g} must be more than its base of {self.base:g}")
        return found


# what each kind of shape needs; a duration of its own takes the place of the profile's
_SHAPES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "soak": (),
    "steps": ("steps",),
    "ramp": ("from", "to", "duration"),
    "spike": ("base", "peak", "at", "for", "duration"),
}
