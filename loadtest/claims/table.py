"""The table of claims as values, read from loadtest/claims.toml and checked whole.

PURE apart from reading the file. A claim says what was published and for which scope, the question it becomes in serving, and the
cells whose measured values answer it; it never says an answer.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.errors import ConfigError

PATH = Path(__file__).parents[1] / "claims.toml"

Kind = Literal["torchserve", "tensorflow_serving"]
Metric = Literal["speed", "mean speed", "throughput", "tail", "memory", "memory at rest"]
Scenario = Literal["compare", "worker", "onnx", "swap"]
_CELL = re.compile(r"([a-z0-9-]+)/(torchserve|tensorflow_serving):([a-z0-9-]+)(?::(\d+)x(\d+))?/([a-z]+)")
_ARM = re.compile(r"(torchserve|tensorflow_serving):([a-z0-9-]+)(?::(\d+)x(\d+))?")


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmKey(_Rule):
    """What is served and how: kind:variant, and :ROWSxMILLISECONDS where requests are batched."""

    kind: Kind
    variant: str
    max_batch: int = 1
    wait_ms: float = 0.0

    @staticmethod
    def parse(text: str) -> ArmKey:
        """From "torchserve:torchscript" or "torchserve:torchscript:16x2"; raises ValueError."""
        found = _ARM.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no arm; write kind:variant, such as torchserve:torchscript")
        kind, variant, size, wait = found.groups()
        return ArmKey.model_validate(
            {"kind": kind, "variant": variant, "max_batch": int(size or 1), "wait_ms": float(wait or 0)}
        )

    def __str__(self) -> str:
        batch = f":{self.max_batch}x{self.wait_ms:g}" if self.max_batch > 1 else ""
        return f"{self.kind}:{self.variant}{batch}"

    @property
    def name(self) -> str:
        """As a backend may be called."""
        short = "ts" if self.kind == "torchserve" else "tfs"
        return f"{short}-{self.variant}" + (f"-{self.max_batch}x{self.wait_ms:g}" if self.max_batch > 1 else "")


class Cell(_Rule):
    """One thing that is measured in every start: a model on an arm under a load."""

    model: str
    arm: ArmKey
    load: str

    @staticmethod
    def parse(text: str) -> Cell:
        """From "model/kind:variant/load"; raises ValueError."""
        found = _CELL.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no cell; write model/kind:variant/load, such as digits/torchserve:eager/one")
        model, arm, load = found.group(1), text.split("/")[1], found.group(6)
        return Cell(model=model, arm=ArmKey.parse(arm), load=load)

    def __str__(self) -> str:
        return f"{self.model}/{self.arm}/{self.load}"


class Source(_Rule):
    """Where a claim was published. `same` names another claim instead, whose source it is."""

    title: str = ""
    author: str = ""
    year: int | None = None
    url: str = ""
    kind: Literal["paper", "vendor documentation", "blog", "commonly said", ""] = ""
    note: str = ""
    same: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Source:
        if self.same:
            return self
        if not self.title or not self.kind:
            raise ValueError("needs a title and a kind, or `same`")
        if self.kind == "commonly said":
            if self.url or not self.note:
                raise ValueError("commonly said: has no url, and a note that says which source was found or not")
        elif not self.author or not self.url.startswith("https://"):
            raise ValueError("needs an author and an https url")
        if self.kind == "paper" and self.year is None:
            raise ValueError("a paper has a year")
        return self


class LoadRule(_Rule):
    """A closed loop; lengths: of the model's sequences, "" as in the model's own inputs."""

    text: str
    concurrency: Annotated[int, Field(ge=1, le=256)]
    lengths: Literal["", "even", "mixed"] = ""


class ModelRule(_Rule):
    """A model's group: the arm that also has a twin, and the seconds of a block."""

    baseline: str
    window: Annotated[float, Field(gt=0)]
    warmup: Annotated[float, Field(ge=0)]


class Part(_Rule):
    """One comparison: the product of the cells in `up` over that of those in `down`."""

    metric: Metric
    up: Annotated[tuple[str, ...], Field(min_length=1)]
    down: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _balanced(self) -> Part:
        if len(self.up) != len(self.down):
            raise ValueError("up and down have equally many cells")
        for text in (*self.up, *self.down):
            Cell.parse(text)
        return self

    @property
    def cells(self) -> tuple[Cell, ...]:
        """up, then down."""
        return tuple(Cell.parse(text) for text in (*self.up, *self.down))


class Claim(_Rule):
    """One entry. bound: half width of a tie (0.1 is from 1/1.1 to 1.1), else a value of the ratio or the share."""

    id: str
    claim: str
    source: Source
    scope: Annotated[tuple[str, ...], Field(min_length=1)]
    question: str
    estimand: str
    about: Literal["servers", "runtimes", "torchserve"]
    rule: Literal["tie", "at least", "at most"]
    bound: Annotated[float, Field(gt=0)]
    unit: Literal["ratio", "share"] = "ratio"
    transfers: bool = True
    quick: bool = False
    optional: bool = False
    scenario: Scenario = "compare"
    parts: tuple[Part, ...] = ()
    model: str = ""
    server: Kind | None = None
    models_served: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        if (self.scenario == "compare") != bool(self.parts):
            raise ValueError("a comparison has parts, another scenario none")
        if self.scenario != "compare" and not self.model:
            raise ValueError(f"scenario {self.scenario}: names no model")
        if (self.scenario == "swap") != (self.server is not None and bool(self.models_served)):
            raise ValueError("a swap, and nothing else, has a server and models_served")
        return self

    @property
    def margin(self) -> str:
        """The bound in words."""
        if self.rule == "tie":
            return f"within {1 / (1 + self.bound):.2f} to {1 + self.bound:.2f}"
        return f"{self.rule} {self.bound * 100:g} %" if self.unit == "share" else f"{self.rule} {self.bound:g}"


class Table(_Rule):
    """The whole file, sources resolved."""

    quick_models: tuple[str, ...]
    loads: dict[str, LoadRule]
    models: dict[str, ModelRule]
    claim: tuple[Claim, ...]

    def chosen(self, ids: tuple[str, ...] = (), quick: bool = False) -> tuple[Claim, ...]:
        """The claims of these ids, else all that are not optional; raises ConfigError.

        quick: without ids the quick claims only, and of them the parts of the quick models.
        """
        found = self._asked(ids, quick)
        return tuple(self._shortened(claim) for claim in found) if quick else found

    def _shortened(self, claim: Claim) -> Claim:
        parts = tuple(part for part in claim.parts if {cell.model for cell in part.cells} <= set(self.quick_models))
        return claim.model_copy(update={"parts": parts or claim.parts, "models_served": claim.models_served[:1]})

    def _asked(self, ids: tuple[str, ...], quick: bool) -> tuple[Claim, ...]:
        known = {claim.id: claim for claim in self.claim}
        unknown = [name for name in ids if name not in known]
        if unknown:
            raise ConfigError([f"claims: {name!r} is none of {', '.join(known)}" for name in unknown])
        if ids:
            return tuple(claim for claim in self.claim if claim.id in ids)
        return tuple(claim for claim in self.claim if not claim.optional and (claim.quick or not quick))


def load(path: Path = PATH) -> Table:
    """Read and check a table; raises ConfigError with every problem."""
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        table = Table.model_validate(document)
    except ValidationError as error:
        names = [str(entry.get("id", "")) for entry in document.get("claim", [])]
        raise ConfigError([f"{path.name}: {_told(problem, names)}" for problem in error.errors()]) from error
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error
    if problems := [f"{path.name}: {problem}" for problem in _problems(table)]:
        raise ConfigError(problems)
    sources = {claim.id: claim.source for claim in table.claim}
    resolved = (
        claim.model_copy(update={"source": sources[claim.source.same]}) if claim.source.same else claim
        for claim in table.claim
    )
    return table.model_copy(update={"claim": tuple(resolved)})


def _told(problem: Any, names: list[str]) -> str:
    place = list(problem["loc"])
    if place[:1] == ["claim"] and len(place) > 1 and isinstance(place[1], int) and place[1] < len(names):
        place[:2] = [f"claim {names[place[1]]}"]
    return f"{'.'.join(map(str, place))}: {problem['msg']}"


def _problems(table: Table) -> list[str]:
    found = [f"claim {name}: is there twice" for name, n in Counter(c.id for c in table.claim).items() if n > 1]
    sources = {claim.id: claim.source for claim in table.claim}
    for name, rule in table.models.items():
        if not _ARM.fullmatch(rule.baseline):
            found.append(f"models.{name}.baseline: {rule.baseline!r} is no arm")
    for claim in table.claim:
        same = claim.source.same
        if same and (same not in sources or sources[same].same):
            found.append(f"claim {claim.id}: source.same: {same!r} is no claim with a source of its own")
        cells = [cell for part in claim.parts for cell in part.cells]
        models = {cell.model for cell in cells} | ({claim.model} if claim.model else set())
        found += [f"claim {claim.id}: models.{model} is missing" for model in sorted(models - set(table.models))]
        loads = {cell.load for cell in cells}
        found += [f"claim {claim.id}: loads.{load} is missing" for load in sorted(loads - set(table.loads))]
    return found
