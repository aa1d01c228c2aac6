"""What a comparison is going to do and by what it will be judged: written down before the first request. PURE but for reading.

Lives here: the profile's schema (loadtest/experiments/*.yaml) and the plan it becomes with a model and its arms. The margin, the
primary metric and alpha come from the file alone: no option changes them, so that nobody can after having seen numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gateway.errors import ConfigError
from loadtest.lab.recording import BlockPlan
from loadtest.lab.spec import ArmSpec
from loadtest.points.spec import Load, Protocol
from loadtest.shapes import PositiveSeconds, Seconds

SHIPPED = Path(__file__).parents[1] / "experiments"
AA = "A/A"

MetricName = Literal[
    "throughput", "service p50", "service p95", "service p99", "intended p50", "intended p95", "intended p99",
    "upstream p50", "CPU per request", "memory", "errors",
]  # fmt: skip


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoadPlan(_Closed):
    """One load of every start: closed (so many at a time), rate (per second, open), or share of the capacity the pilot found."""

    closed: Annotated[int, Field(ge=1, le=4096)] | None = None
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    share: Annotated[float, Field(gt=0, le=2)] | None = None
    arrivals: Literal["poisson", "constant"] = "poisson"


class Primary(_Closed):
    """What decides: the metric, and the load's name."""

    metric: MetricName
    load: str


class Timing(_Closed):
    """Of a block: what is kept, the least warm-up, what more may be discarded; prime: how long first requests after a start
    may go on at most (lab/priming.py), 0 for none."""

    duration: PositiveSeconds
    warmup: Seconds
    slack: Seconds
    prime: Seconds


class Experiment(_Closed):
    """A profile. margins: per metric, as a ratio's distance from 1 (0.05: from 1/1.05 to 1.05), of errors as a share."""

    question: str
    loads: Annotated[dict[str, LoadPlan], Field(min_length=1)]
    protocols: tuple[Protocol, ...] = ("tfs-rest",)
    primary: Primary
    margin: Annotated[float, Field(gt=0, le=1)] = 0.05
    margins: dict[MetricName, Annotated[float, Field(gt=0, le=1)]] = {}
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    replicates: Annotated[int, Field(ge=1, le=1000)] = 6
    rows: Annotated[int, Field(ge=1, le=1024)] = 1
    seed: int = 1
    quick: Timing
    full: Timing


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """A comparison, whole: enough to run it, to resume it and to judge it. arms[0] is the baseline.

    aa: name of the A/A arm among the arms, a second instance of the baseline; "" for none. pilot_load: closed concurrency
    of the pilot start that fixes loads given as a share, 0 where none is needed.
    """

    profile: str
    question: str
    model: str
    arms: tuple[ArmSpec, ...]
    aa: str
    loads: Mapping[str, LoadPlan]
    protocols: tuple[Protocol, ...]
    path: Literal["gateway", "direct"]
    primary: Primary
    margin: float
    margins: Mapping[str, float]
    alpha: float
    replicates: int
    timing: Timing
    payloads: Path
    signature: Path | None
    check: Literal["off", "label", "reference"]
    rows: int = 1
    seed: int = 1

    @property
    def baseline(self) -> ArmSpec:
        """What the others are held against."""
        return self.arms[0]

    @property
    def pilot_load(self) -> int:
        """Requests at a time of the pilot that finds the capacity; 0 where no load is a share of it."""
        if not any(load.share is not None for load in self.loads.values()):
            return 0
        return max((load.closed or 0 for load in self.loads.values()), default=0) or 8

    def margin_of(self, metric: str) -> float:
        """The margin a metric is held against."""
        return self.margins.get(metric, self.margin)

    def rates(self, capacity: float | None) -> Mapping[str, float]:
        """The arrivals per second of every open load, given the pilot's capacity in requests per second."""
        found = {}
        for name, load in self.loads.items():
            if load.rate is not None:
                found[name] = load.rate
            elif load.share is not None:
                assert capacity is not None
                found[name] = load.share * capacity
        return found

    def block(self, name: str, protocol: Protocol, rate: float | None) -> BlockPlan:
        """A block of one of the loads, still without place and id."""
        load, timing = self.loads[name], self.timing
        if load.closed is not None:
            sent = Load.closed(load.closed, timing.duration, timing.warmup)
        else:
            assert rate is not None
            sent = Load.open(rate, timing.duration, timing.warmup, load.arrivals)
        return BlockPlan(
            load=sent,
            payloads=self.payloads,
            signature=self.signature,
            protocol=protocol,
            path=self.path,
            name=name,
            slack=timing.slack,
            rows=((self.rows, 1.0),),
            check=self.check,
            seed=self.seed,
        )


def to_json(plan: ComparisonPlan) -> dict[str, Any]:
    """The plan as it stands in lab.json."""
    told: dict[str, Any] = TypeAdapter(ComparisonPlan).dump_python(plan, mode="json")
    return told


def from_json(told: Mapping[str, Any]) -> ComparisonPlan:
    """The plan of a lab.json; raises ConfigError where it is none."""
    known = {key: value for key, value in told.items() if key in ComparisonPlan.__dataclass_fields__}
    try:
        return TypeAdapter(ComparisonPlan).validate_python(known)
    except ValidationError as error:
        raise ConfigError([f"lab.json: plan: {item['loc']}: {item['msg']}" for item in error.errors()]) from error


def shipped() -> tuple[str, ...]:
    """The names of the experiments that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def load(name: str) -> Experiment:
    """Read an experiment, a file or a shipped one's name; raises ConfigError with every problem."""
    path = Path(name) if Path(name).is_file() else SHIPPED / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError([f"{name}: no such experiment; give a file, or one of {', '.join(shipped())}"])
    try:
        experiment = Experiment.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path}: cannot be read as YAML: {error}"]) from error
    except ValidationError as error:
        places = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
        raise ConfigError([f"{path}: {place or 'experiment'}: {message}" for place, message in places]) from error
    problems = _contradictions(experiment)
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    return experiment


def _contradictions(experiment: Experiment) -> list[str]:
    problems = []
    for name, one in experiment.loads.items():
        given = [key for key in ("closed", "rate", "share") if getattr(one, key) is not None]
        if len(given) != 1:
            problems.append(f"loads.{name}: needs exactly one of closed, rate and share, not {given or 'none'}")
    primary = experiment.primary
    found = experiment.loads.get(primary.load)
    if found is None:
        problems.append(f"primary.load: there is no load {primary.load!r}; there are {', '.join(experiment.loads)}")
    elif found.closed is None and primary.metric == "throughput":
        problems.append("primary: throughput under a given rate is that rate; take a closed load")
    elif found.closed is not None and primary.metric.startswith("intended"):
        problems.append("primary: a closed load has no intended times; take service, or a load with a rate")
    return problems
