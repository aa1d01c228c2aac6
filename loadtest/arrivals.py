"""When requests are due and who sends them: the plan of users over time, the window, and the seeded draws.

PURE: times and seeds come in as arguments; nothing here reads a clock, sleeps or knows Locust.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_BLOCK = 2048  # draws made at once: numpy's cost per call is spread over them


@dataclass(frozen=True, slots=True)
class Step:
    """So many users for so many seconds."""

    users: int
    seconds: float


def ramp(start: int, end: int, seconds: float) -> tuple[Step, ...]:
    """From start to end users, one more (or fewer) at a time, each number for an equal part of the seconds."""
    count = abs(end - start) + 1
    way = 1 if end >= start else -1
    return tuple(Step(start + way * place, seconds / count) for place in range(count))


def spike(base: int, peak: int, at: float, length: float, seconds: float) -> tuple[Step, ...]:
    """base users for `seconds`, but peak of them from second `at` on, `length` seconds long, which ends inside; 0 <= at."""
    course = (Step(base, at), Step(peak, length), Step(base, seconds - at - length))
    return tuple(step for step in course if step.seconds > 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """Users over time: warm-up (seconds, with the first step's users), then the steps, which are the window."""

    warmup: float
    steps: tuple[Step, ...]
    spawn_rate: float
    rate: float | None

    @property
    def duration(self) -> float:
        """Length of the measurement window in seconds."""
        return sum(step.seconds for step in self.steps)

    def users_at(self, elapsed: float) -> int | None:
        """How many users there should be so many seconds after the warm-up began; None when it is over."""
        left = elapsed - self.warmup
        if left < 0:
            return self.steps[0].users
        for step in self.steps:
            if left < step.seconds:
                return step.users
            left -= step.seconds
        return None

    def interval(self, elapsed: float) -> float:
        """Seconds between two requests of one user at that time, 0 when no rate is set (closed loop)."""
        if self.rate is None:
            return 0.0
        return (self.users_at(elapsed) or self.steps[-1].users) / self.rate

    @property
    def offered(self) -> float | None:
        """Requests due inside the window, None without a rate."""
        return None if self.rate is None else self.rate * self.duration


@dataclass(frozen=True, slots=True)
class Window:
    """Wall-clock nanoseconds of a run: warm-up from warmup_start_ns, measured in [start_ns, end_ns).

    offset_ns turns this machine's monotonic clock into wall time; all processes of a run use the same one, so that a
    stepped wall clock cannot bend the window.
    """

    warmup_start_ns: int
    start_ns: int
    end_ns: int
    offset_ns: int

    @classmethod
    def planned(cls, plan: Plan, wall_ns: int, monotonic_ns: int) -> Window:
        """The window of a run that begins now."""
        start = wall_ns + round(plan.warmup * 1e9)
        return cls(wall_ns, start, start + round(plan.duration * 1e9), wall_ns - monotonic_ns)

    def cut(self, end_ns: int) -> Window:
        """The same window when the run ended early; it may be empty, never negative."""
        end = min(self.end_ns, max(end_ns, self.warmup_start_ns))
        return Window(self.warmup_start_ns, min(self.start_ns, end), end, self.offset_ns)


def generator(seed: int, *path: int) -> Any:
    """numpy's PCG64 for one consumer of a run: equal seed and path give equal draws."""
    return np.random.default_rng([seed, *path])


def unit_names(seed: int, population: int) -> list[str]:
    """The population's unit ids; another seed is another population."""
    return [f"u{seed}-{index:06d}" for index in range(population)]


def zipf_cumulative(population: int, exponent: float) -> Any:
    """Cumulative probabilities of ranks 1..population with P(k) proportional to k**-exponent (Zipf's law)."""
    weights = np.arange(1, population + 1, dtype=np.float64) ** -exponent
    cumulative = np.cumsum(weights)
    return cumulative / cumulative[-1]


def unit_draws(rng: Any, population: int, cumulative: Any | None) -> Iterator[int]:
    """Endless unit indices: uniform, or by the cumulative probabilities given."""
    while True:
        if cumulative is None:
            block = rng.integers(0, population, _BLOCK)
        else:
            block = np.minimum(np.searchsorted(cumulative, rng.random(_BLOCK), side="right"), population - 1)
        yield from block.tolist()


def choice_draws(rng: Any, sizes: Sequence[int], weights: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Endless (group, member): a group by weight, a member of it (sizes[group] of them) uniformly."""
    share = np.cumsum(np.asarray(weights, dtype=np.float64))
    share /= share[-1]
    count = np.asarray(sizes)
    while True:
        groups = np.minimum(np.searchsorted(share, rng.random(_BLOCK), side="right"), len(sizes) - 1)
        members = np.minimum((rng.random(_BLOCK) * count[groups]).astype(np.int64), count[groups] - 1)
        yield from zip(groups.tolist(), members.tolist(), strict=True)
