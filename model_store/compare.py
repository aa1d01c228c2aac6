"""Are two answers the same? Pure arithmetic on decoded outputs.

Here live the tolerance, the maximum absolute difference, argmax agreement and the place of the worst difference; nothing that
runs a model, reads a file or names a framework.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Equal means |got - want| <= atol + rtol * |want|, as numpy.isclose has it; only floating point gets it.

    With relative_error it means instead ||got - want|| <= relative_error * ||want|| over all rows of an output (2-norms), and
    the same largest element in at least the share `argmax` of the rows: for what is rounded on purpose, such as 8-bit weights.
    """

    rtol: float
    atol: float
    relative_error: float | None = None
    argmax: float = 0.0

    def __str__(self) -> str:
        if self.relative_error is None:
            return f"{self.atol:g} + {self.rtol:g} x |value|"
        return f"a relative error of {self.relative_error:g} and the same argmax in {self.argmax:.0%} of the rows"


@dataclass(frozen=True, slots=True)
class Place:
    """Where two answers differ most: input row, index inside that row's output, and both values."""

    row: int
    index: tuple[int, ...]
    got: str
    want: str


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """How one output tensor differs over all inputs.

    max_abs_diff is None where the datatype has no distance (text, bool); argmax_agreement is the share of rows whose largest
    element is the same, None where a row has a single element or is not numeric; relative_error is ||got - want|| / ||want||
    over all rows, None where there is no distance or nothing to relate it to.
    """

    output: str
    ok: bool
    max_abs_diff: float | None
    argmax_agreement: float | None
    rows_outside: int
    worst: Place | None
    problem: str = ""
    relative_error: float | None = None


def compare(
    got: Mapping[str, NDArray[Any]], want: Mapping[str, NDArray[Any]], tolerance: Tolerance
) -> tuple[OutputDifference, ...]:
    """Compare every output the reference has; arrays have one row per input in the first dimension."""
    return tuple(_compare_one(name, got.get(name), reference, tolerance) for name, reference in want.items())


def _compare_one(name: str, got: NDArray[Any] | None, want: NDArray[Any], tolerance: Tolerance) -> OutputDifference:
    if got is None:
        return OutputDifference(name, False, None, None, len(want), None, "is missing from the answer")
    if got.shape != want.shape:
        problem = f"has shape {list(got.shape)} where {list(want.shape)} is right"
        return OutputDifference(name, False, None, None, len(want), None, problem)
    if _family(got) != _family(want):
        problem = f"has datatype {got.dtype} where {want.dtype} is right"
        return OutputDifference(name, False, None, None, len(want), None, problem)
    outside, distance = _outside(got, want, tolerance)
    bad_rows = outside.reshape(len(want), -1).any(axis=1) if want.size else np.zeros(len(want), bool)
    agreement, relative = _argmax_agreement(got, want), _relative_error(want, distance)
    ok = not bad_rows.any()
    if tolerance.relative_error is not None and relative is not None:
        ok = relative <= tolerance.relative_error and (agreement is None or agreement >= tolerance.argmax)
    return OutputDifference(
        name,
        ok,
        None if distance is None else float(distance.max(initial=0.0)),
        agreement,
        0 if ok else int(bad_rows.sum()),
        None if ok else _worst(got, want, outside, distance),
        relative_error=relative,
    )


def _relative_error(want: NDArray[Any], distance: NDArray[np.float64] | None) -> float | None:
    size = 0.0 if distance is None else float(np.linalg.norm(want.astype(np.float64)))
    return float(np.linalg.norm(distance)) / size if distance is not None and 0.0 < size < np.inf else None


def _family(array: NDArray[Any]) -> str:
    return {"f": "float", "i": "int", "u": "int", "b": "bool"}.get(array.dtype.kind, "bytes")


def _outside(
    got: NDArray[Any], want: NDArray[Any], tolerance: Tolerance
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Which elements differ by more than allowed, and every element's distance (infinite where only one is a number)."""
    if _family(want) not in ("float", "int"):
        return np.asarray(got != want, np.bool_), None
    a, b = got.astype(np.float64), want.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(a - b))
    distance = np.where(np.isnan(distance), np.inf, distance)
    if _family(want) == "int":
        return np.asarray(got != want, np.bool_), distance
    allowed = tolerance.atol + tolerance.rtol * np.abs(np.where(np.isfinite(b), b, 0.0))
    return distance > allowed, distance


def _argmax_agreement(got: NDArray[Any], want: NDArray[Any]) -> float | None:
    if _family(want) not in ("float", "int") or want.ndim < 2 or want[0:1].size <= 1 or not len(want):
        return None
    rows = len(want)
    return float(np.mean(got.reshape(rows, -1).argmax(axis=1) == want.reshape(rows, -1).argmax(axis=1)))


def _worst(
    got: NDArray[Any], want: NDArray[Any], outside: NDArray[np.bool_], distance: NDArray[np.float64] | None
) -> Place:
    weight = outside.astype(np.float64) if distance is None else np.where(outside, distance, -1.0)
    place = tuple(int(i) for i in np.unravel_index(int(weight.argmax()), weight.shape))
    return Place(place[0], place[1:], str(got[place]), str(want[place]))
