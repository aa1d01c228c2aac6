"""When an open loop's requests are due: the whole schedule, made before the run from a course and a seed. PURE.

A course is a row of segments whose rates are linear in time. Arrivals are nanosecond offsets from the beginning of the
warm-up, which runs at the course's first rate. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ConfigError
from loadtest.points.spec import Arrivals, Load, Segment

Times = NDArray[np.int64]
MOST = 20_000_000
"""Arrivals of one schedule; more would not fit beside what is recorded of them."""


def constant(rate: float, seconds: float) -> tuple[Segment, ...]:
    """One rate."""
    return (Segment(seconds, rate, rate),)


def steps(*stairs: tuple[float, float]) -> tuple[Segment, ...]:
    """(rate, seconds) after another."""
    return tuple(Segment(seconds, rate, rate) for rate, seconds in stairs)


def ramp(from_rate: float, to_rate: float, seconds: float) -> tuple[Segment, ...]:
    """Linearly from one rate to the other."""
    return (Segment(seconds, from_rate, to_rate),)


def spike(base: float, peak: float, before: float, during: float, after: float) -> tuple[Segment, ...]:
    """A sudden peak between two stretches of the base rate; the three times in seconds."""
    return steps((base, before), (peak, during), (base, after))


def soak(rate: float, seconds: float, rise: float) -> tuple[Segment, ...]:
    """From nothing to the rate in `rise` seconds, then that rate for the rest of `seconds`."""
    return (Segment(rise, 0.0, rate), Segment(seconds - rise, rate, rate))


def problems(load: Load, replay: bool = False) -> list[str]:
    """What is wrong with a load, each with what would be right; replay: a capture says when arrivals are due."""
    found = []
    if load.duration <= 0 or load.warmup < 0:
        found.append(f"duration {load.duration:g} s after a warm-up of {load.warmup:g} s: the duration must be above 0")
    if load.kind == "closed":
        if not load.concurrency or load.concurrency < 1:
            found.append(f"a closed loop needs a concurrency of at least 1, not {load.concurrency}")
        return found
    if load.outstanding < 1:
        found.append(f"an open loop needs at least 1 place for a request under way, not {load.outstanding}")
    if replay:
        return found
    if not load.course:
        return [*found, "an open loop needs a course: at least one segment with a rate"]
    if any(part.seconds <= 0 or min(part.from_rate, part.to_rate) < 0 for part in load.course):
        found.append("a segment needs more than 0 seconds and rates that are not negative")
    total = sum(part.seconds for part in load.course)
    if abs(total - load.duration) > 1e-6:
        found.append(f"the course lasts {total:g} s and the duration is {load.duration:g} s; they must be equal")
    if (count := expected(load)) > MOST:
        found.append(f"{count:.0f} arrivals are more than {MOST}; lower the rate or shorten the run")
    return found


def whole(load: Load) -> tuple[Segment, ...]:
    """The course with the warm-up in front."""
    first = load.course[0].from_rate
    return (Segment(load.warmup, first, first), *load.course) if load.warmup > 0 else load.course


def expected(load: Load) -> float:
    """Mean number of arrivals, warm-up included."""
    return float(sum(_area(part) for part in whole(load)))


def arrivals(load: Load, seed: int, stream: int = 0) -> Times:
    """Every arrival of an open load as offsets in ns, ascending, shape [arrivals]; raises ConfigError for a bad load.

    constant: the k-th arrival is where the integrated rate reaches k, from 0 on. poisson: unit exponential gaps, seeded,
    through the same inverse (Cinlar's method), which is exact for any rate.
    """
    if found := problems(load):
        raise ConfigError(found)
    course = whole(load)
    total = expected(load)
    if load.arrivals == "constant":
        # a hair below the total: an arrival at the very end would be outside the window
        marks = np.arange(int(np.ceil(total - 1e-9)), dtype=np.float64)
    else:
        marks = _poisson_marks(total, np.random.default_rng([seed, 3, stream]))
    return inverse(course, marks)


def _poisson_marks(total: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points of a unit-rate Poisson process in [0, total)."""
    blocks, reached = [], 0.0
    while reached < total:
        count = int(total - reached + 4 * np.sqrt(total - reached) + 16)
        block = reached + np.cumsum(rng.standard_exponential(count))
        blocks.append(block)
        reached = float(block[-1])
    marks = np.concatenate(blocks) if blocks else np.empty(0)
    return marks[marks < total]


def inverse(course: Sequence[Segment], marks: NDArray[np.float64]) -> Times:
    """Where the integrated rate reaches each mark (ascending, below the whole), in ns from the course's beginning."""
    parts, begun, begin_s = [], 0.0, 0.0
    for number, part in enumerate(course):
        area = _area(part)
        last = number == len(course) - 1
        low = int(np.searchsorted(marks, begun, side="left"))
        high = marks.size if last else int(np.searchsorted(marks, begun + area, side="left"))
        parts.append(begin_s + np.minimum(_within(part, marks[low:high] - begun), part.seconds))
        begun, begin_s = begun + area, begin_s + part.seconds
    seconds = np.concatenate(parts) if parts else np.empty(0)
    return np.floor(seconds * 1e9 + 1e-3).astype(np.int64)


def _within(part: Segment, marks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds into a segment at which its own integrated rate a*t + b*t*t/2 reaches each mark."""
    slope = (part.to_rate - part.from_rate) / part.seconds
    if slope == 0:
        return marks / part.from_rate if part.from_rate > 0 else np.zeros_like(marks)
    root = np.sqrt(np.maximum(part.from_rate**2 + 2 * slope * marks, 0.0))
    below = part.from_rate + root  # 2c / (a + root): no cancellation where the slope is small
    return np.divide(2 * marks, below, out=np.zeros_like(marks), where=below > 0)


def _area(part: Segment) -> float:
    return part.seconds * (part.from_rate + part.to_rate) / 2


def rate_at(course: Sequence[Segment], seconds: float) -> float:
    """The rate so many seconds after the course's beginning, 0 outside."""
    for part in course:
        if 0 <= seconds < part.seconds:
            return part.from_rate + (part.to_rate - part.from_rate) * seconds / part.seconds
        seconds -= part.seconds
    return 0.0


__all__ = [
    "MOST",
    "Arrivals",
    "arrivals",
    "constant",
    "expected",
    "inverse",
    "problems",
    "ramp",
    "rate_at",
    "soak",
    "spike",
    "steps",
    "whole",
]
