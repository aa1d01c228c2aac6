from typing import Any

import numpy as np
import pytest

from model_store.compare import Place, Tolerance, compare

TOLERANCE = Tolerance(rtol=1e-2, atol=1e-3)


def floats(*rows: Any) -> Any:
    return np.array(rows, np.float32)


@pytest.mark.parametrize(
    ("got", "want", "ok", "distance", "agreement", "outside"),
    [
        (floats([1, 2]), floats([1, 2]), True, 0.0, 1.0, 0),
        (floats([1, 2.02]), floats([1, 2]), True, 0.02, 1.0, 0),  # 1e-3 + 1e-2 * 2 = 0.021 is allowed
        (floats([1, 2.022]), floats([1, 2]), False, 0.022, 1.0, 1),
        (floats([0.0011, 5]), floats([0, 5]), False, 0.0011, 1.0, 1),  # at zero only atol counts
        (floats([2.01, 2]), floats([2, 2.005]), True, 0.01, 0.0, 0),  # within, and yet another argmax
        (floats([1, 2], [3, 9]), floats([1, 2], [9, 3]), False, 6.0, 0.5, 1),
        (floats([np.nan, 1]), floats([np.nan, 1]), True, 0.0, 1.0, 0),
        (floats([np.nan, 1]), floats([0, 1]), False, np.inf, 0.0, 1),
        (floats([np.inf, 1]), floats([np.inf, 1]), True, 0.0, 1.0, 0),
        (floats([-np.inf, 1]), floats([np.inf, 1]), False, np.inf, 0.0, 1),
        (floats([1]), floats([1]), True, 0.0, None, 0),  # one element a row has no argmax
        (np.array([[5, 7]]), np.array([[5, 8]]), False, 1.0, 1.0, 1),  # whole numbers get no tolerance
        (np.array([[True]]), np.array([[False]]), False, None, None, 1),
        (np.array([[b"a"]], object), np.array([[b"a"]], object), True, None, None, 0),
        (np.array([[b"a"]], object), np.array([[b"b"]], object), False, None, None, 1),
    ],
)
def test_two_answers(
    got: Any, want: Any, ok: bool, distance: float | None, agreement: float | None, outside: int
) -> None:
    (found,) = compare({"y": got}, {"y": want}, TOLERANCE)
    assert found.output == "y"
    assert found.ok is ok
    assert found.max_abs_diff == (None if distance is None else pytest.approx(distance, rel=1e-3))
    assert found.argmax_agreement == agreement
    assert found.rows_outside == outside


def test_the_worst_place_is_the_farthest_of_those_outside() -> None:
    want = floats([[1000, 0]], [[0, 1]])
    got = floats([[1005, 0]], [[0, 1.5]])  # 5 apart is allowed at 1,000; 0.5 at 1 is not
    (found,) = compare({"y": got}, {"y": want}, TOLERANCE)
    assert found.worst == Place(row=1, index=(0, 1), got="1.5", want="1.0")
    assert found.max_abs_diff == 5.0


@pytest.mark.parametrize(
    ("got", "said"),
    [
        ({}, "is missing from the answer"),
        ({"y": floats([1, 2, 3])}, "has shape [1, 3] where [1, 2] is right"),
        ({"y": np.array([[1, 2]])}, "has datatype int64 where float32 is right"),
    ],
)
def test_an_answer_of_another_form_is_not_equal(got: dict[str, Any], said: str) -> None:
    (found,) = compare(got, {"y": floats([1, 2])}, TOLERANCE)
    assert not found.ok
    assert found.problem == said
