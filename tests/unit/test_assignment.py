"""Assignment: published vectors, exact edges, and what hashing must keep (and must not keep)."""

from collections import Counter
from hashlib import sha256

import pytest

from gateway.experiments.assignment import SPACE, choose, edges, position

# (salt, unit, position): SHA-256("{salt}.{unit}"), first 8 bytes, big-endian; README publishes these
VECTORS = [
    ("7f3a", "user-1", 0x980E1465D71EAB28),
    ("7f3a", "user-2", 0x95EA20BD4798294C),
    ("7f3a", "", 0x084C0DE12BC72566),
    ("7f3a", "Zoë", 0x3CBC0394C1698A71),
    ("c41d", "user-1", 0x7BC54577EC7D30B0),
]


@pytest.mark.parametrize(("salt", "unit", "expected"), VECTORS)
def test_published_vectors(salt: str, unit: str, expected: int) -> None:
    assert position(salt, unit) == expected
    assert expected == int(sha256(f"{salt}.{unit}".encode()).hexdigest()[:16], 16)


# weights -> the last position of each arm that owns any
EDGES = [
    ((1,), (SPACE,)),
    ((50, 50), (SPACE // 2, SPACE)),
    ((0, 1), (0, SPACE)),
    ((1, 0), (SPACE, SPACE)),
    ((1, 1, 1), (-(-SPACE // 3), -(-2 * SPACE // 3), SPACE)),
    ((1, 0, 3), (SPACE // 4, SPACE // 4, SPACE)),
]


@pytest.mark.parametrize(("weights", "expected"), EDGES)
def test_edges(weights: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert edges(weights) == expected


@pytest.mark.parametrize("weights", [(1, 1, 1), (50, 50), (1, 2, 4, 0, 9), (999_999, 1), (0, 7), (3, 0, 0)])
def test_edges_say_what_the_rule_says_at_every_border(weights: tuple[int, ...]) -> None:
    total = sum(weights)
    found = edges(weights)
    for border in {0, SPACE - 1, *found, *(edge - 1 for edge in found), *(edge + 1 for edge in found)}:
        if not 0 <= border < SPACE:
            continue
        by_rule = next(i for i in range(len(weights)) if border * total < sum(weights[: i + 1]) * SPACE)
        assert choose(border, found) == by_rule
        assert weights[choose(border, found)] > 0


@pytest.mark.parametrize("weights", [(), (0,), (0, 0), (-1, 2)])
def test_weights_that_cannot_be_dealt_are_refused(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="weights must be integers"):
        edges(weights)


def test_a_position_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        choose(SPACE, edges((1, 1)))


def test_ten_thousand_units_are_dealt_by_weight() -> None:
    found = edges((70, 20, 10))
    counts = Counter(choose(position("salt", f"user-{number}"), found) for number in range(10_000))
    # four standard deviations of a binomial with n = 10,000
    assert abs(counts[0] - 7000) < 4 * 46
    assert abs(counts[1] - 2000) < 4 * 40
    assert abs(counts[2] - 1000) < 4 * 30


def test_growing_an_arm_moves_units_only_towards_it() -> None:
    before, after = edges((50, 50)), edges((60, 40))
    for number in range(2000):
        h = position("s", f"u{number}")
        if choose(h, before) != choose(h, after):
            assert (choose(h, before), choose(h, after)) == (1, 0)


def test_two_salts_deal_independently() -> None:
    halves = edges((1, 1))
    pairs = Counter(
        (choose(position("a", f"u{n}"), halves), choose(position("b", f"u{n}"), halves)) for n in range(4000)
    )
    assert min(pairs.values()) > 1000 - 4 * 28
    assert max(pairs.values()) < 1000 + 4 * 28


def test_a_unit_of_undecodable_bytes_has_a_place_too() -> None:
    assert 0 <= position("s", b"\xff\xfe".decode("utf-8", "surrogateescape")) < SPACE
