"""The searches' plans: brackets, grids, orders, levels, stop rules, fronts, what comes next."""

import itertools

import pytest

from gateway.stats.paired import pair_orders
from loadtest.lab import batching, slo, sweep
from loadtest.lab.batching import UNBATCHED, Figures, Levels, Next, Setting
from loadtest.lab.slo import Bracket, Objective, Probe, Search

SLO = Objective(20.0, 0.001)


def bracketed(capacity, search=None, given=lambda rate: True):
    """All probes against a server that holds up to a capacity, and the bracket."""
    probes = []
    while not isinstance(step := slo.next_probe(probes, SLO, search or Search()), Bracket):
        probes.append(Probe(step, 0.0 if step <= capacity else 0.5, 0.0, given(step)))
    return [probe.rate for probe in probes], step


@pytest.mark.parametrize(
    ("capacity", "rates", "low", "high"),
    [
        (100, [64, 128, 128, 90.5, 108, 108], 90.5, 108),
        (1000, [64, 128, 256, 512, 1024, 1024, 724, 861], 861, 1024),
        (10, [64, 64, 32, 32, 16, 16, 8, 11.3, 11.3, 9.51], 9.51, 11.3),
    ],
)
def test_bracket_doubles_or_halves_then_bisects(capacity, rates, low, high):
    tried, bracket = bracketed(capacity)
    assert (bracket.low, bracket.high, bracket.note) == (low, high, "")
    assert tried == rates
    assert high / low <= slo.CLOSE


def test_bracket_ends_where_the_search_does():
    assert "missed already at 1/s" in bracketed(0.0)[1].note
    assert "still held at 500/s" in bracketed(1e9, Search(highest=500))[1].note


def test_a_probe_whose_load_was_not_given_does_not_hold():
    _, bracket = bracketed(1e6, given=lambda rate: rate <= 300)
    assert bracket.low < 300 < bracket.high
    assert "did not keep its schedule" in bracket.note


@pytest.mark.parametrize(
    ("over", "errors", "limit", "held"),
    [(0.01, 0.0, 0.001, True), (0.011, 0.0, 0.001, False), (0.005, 0.002, 0.001, False), (0.005, 0.002, None, True)],
)
def test_held(over, errors, limit, held):
    assert Probe(1.0, over, errors).held(Objective(20.0, limit)) is held


def test_one_pause_of_the_machine_does_not_end_a_search_too_low():
    pause = Probe(64, 0.0104, 0)
    assert slo.next_probe([pause], SLO, Search()) == 64
    assert slo.next_probe([pause, Probe(64, 0, 0)], SLO, Search()) == 128
    assert slo.next_probe([pause, pause], SLO, Search()) == 32


def test_bisection_is_bounded_and_survives_contradiction():
    """Rates that held above one that failed are not taken for the lower end."""
    probes = [Probe(64, 0, 0), Probe(128, 0, 0), *[Probe(256, 0.5, 0)] * 2]
    assert slo.next_probe(probes, SLO, Search()) == 181
    noisy = [*probes, Probe(181, 0, 0), *[Probe(100, 0.5, 0)] * 2]
    assert slo.next_probe(noisy, SLO, Search()) == 80
    held = [Probe(rate, 0, 0) for rate in (80, 84, 88, 92)]
    assert isinstance(slo.next_probe([*noisy, *held], Objective(20.0, 0.001), Search()), Bracket)


def test_grid_is_one_for_all_arms_and_reaches_beyond_every_bracket():
    grid = slo.grid([Bracket(100, 120), Bracket(400, 500)], points=8)
    assert grid[0] == 60
    assert grid[-1] == 800
    assert list(grid) == sorted(set(grid))
    assert len(grid) == 16
    for low, high in ((100, 120), (400, 500)):
        assert sum(0.5 * low < rate <= low for rate in grid) >= 2
        assert sum(high < rate < 2 * high for rate in grid) >= 2
    together = slo.grid([Bracket(100, 120), Bracket(101, 121)], points=8)
    assert len(together) <= 9, "nearly equal brackets share their rates"
    assert slo.grid([Bracket(None, 1.0), Bracket(7.0, None)]) == ()


def test_every_rate_of_every_arm_once_a_start():
    arms, rates = ("a", "b"), (1.0, 2.0, 3.0)
    places = slo.order(arms, rates, 3, seed=5)
    for start in range(3):
        cells = [(place.arm, place.rate) for place in places if place.replicate == start]
        assert sorted(cells) == sorted(itertools.product(arms, rates))
    assert places == slo.order(arms, rates, 3, seed=5) != slo.order(arms, rates, 3, seed=6)
    assert len({tuple(p.arm for p in places if p.replicate == start) for start in range(3)}) > 1


def test_six_starts_are_pairs():
    places = slo.order(("a", "b"), (1.0, 2.0), 6, seed=5)
    for start, order in enumerate(pair_orders(6, 5)):
        arms = [place.arm for place in places if place.replicate == start]
        assert arms == (["a", "a", "b", "b"] if order == "AB" else ["b", "b", "a", "a"])


@pytest.mark.parametrize(
    ("rate", "errors", "seconds"),
    [
        (1000, None, 10),
        (50, None, 26.5),
        (5, None, 158.9),  # the floor of a p99 comes before the longest wait
        (1000, 0.01, 10),
        (50, 0.01, 26.5),
        (200, 0.001, 30),  # 6000 requests: with fewer than 3000 a limit of 0.1% could not be shown at all
        (1000, 0.0001, 60),
    ],
)
def test_a_slow_rate_takes_longer_and_so_does_a_strict_limit_on_errors(rate, errors, seconds):
    assert slo.seconds_for(rate, 10, errors) == seconds


@pytest.mark.parametrize(
    ("latencies", "idle", "failed", "is_drained"),
    [
        ([1.0, 1.2, 9.0], 1.0, 0, True),
        ([3.1, 3.2, 3.3], 1.0, 0, False),
        ([30.0], 16.0, 0, True),
        ([33.0], 16.0, 0, False),
        ([1.0], 1.0, 1, False),
        ([], 1.0, 0, False),
    ],
)
def test_drained(latencies, idle, failed, is_drained):
    assert slo.drained(latencies, idle, failed) is is_drained


@pytest.mark.parametrize(
    ("text", "found", "stop"),
    [
        ("1:64", (1, 2, 4, 8, 16, 32, 64), True),
        ("1:5", (1, 2, 4), True),
        ("9, 1,4", (1, 4, 9), False),
        ("3", (3,), False),
    ],
)
def test_levels(text, found, stop):
    assert sweep.levels(text) == (found, stop)


@pytest.mark.parametrize("text", ["", "0:4", "4:1", "1:2:3", "a", "1.5", "1,-2"])
def test_levels_say_what_is_right(text):
    with pytest.raises(ValueError, match="write a range such as 1:64"):
        sweep.levels(text)


@pytest.mark.parametrize(
    ("throughputs", "stop"),
    [([1, 2, 4], False), ([100, 101, 103, 104], True), ([100, 101, 103, 106], False), ([1, 100, 99, 98, 97], True),
     ([50, 100, 99, 98], False)],
)  # fmt: skip
def test_stop_rule(throughputs, stop):
    assert sweep.flat(throughputs) is stop


def test_rates_of_both_arms_are_one_list():
    assert sweep.rates_from([100]) == (20, 40, 60, 80, 90, 100)
    both = sweep.rates_from([100, 105])
    assert len(both) < 10
    assert sweep.rates_from([]) == sweep.rates_from([0.0]) == ()


def test_three_by_three():
    levels = Levels()
    cells = batching.first_grid(levels, seed=1)
    assert sorted(cells) == [Setting(b, w) for b in (2, 8, 64) for w in (1, 2, 10)]
    assert cells != batching.first_grid(levels, seed=2)
    assert len(batching.first_grid(Levels((2, 8), (1.0,)), 1)) == 2


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ({}, []),
        ({(2, 1): (100, 5)}, [(2, 1)]),
        ({(2, 1): (100, 5), (4, 1): (200, 9), (8, 1): (150, 10)}, [(4, 1), (2, 1)]),
        ({(2, 1): (100, 5), (4, 1): (100, 5)}, [(2, 1), (4, 1)]),
        ({(2, 1): (100, 5), (4, 1): None}, [(2, 1)]),
    ],
)
def test_front(figures, kept):
    found = {Setting(*at): Figures(*value) if value else None for at, value in figures.items()}
    assert batching.front(found) == tuple(Setting(*at) for at in kept)


def test_neighbours_are_levels_that_were_skipped():
    around = batching.neighbours(Setting(8, 2.0), (2, 4, 8, 16), (0.0, 1.0, 2.0, 5.0))
    assert around == (Setting(16, 2.0), Setting(4, 2.0), Setting(8, 1.0), Setting(8, 5.0))
    assert batching.neighbours(UNBATCHED, (2, 4), (1.0, 2.0)) == (Setting(2, 1.0),)
    assert batching.neighbours(Setting(2, 0.0), (2, 4), (0.0, 1.0)) == (Setting(4, 0.0), Setting(2, 1.0))


def searched(levels, truth, arms=("ts", "tf")):
    """Every cell of a whole search whose figures are known beforehand."""
    done = {arm: {} for arm in arms}
    taken = []
    while isinstance(step := batching.following(done, levels, seed=3), Next):
        taken.append(step)
        for arm in step.arms:
            done[arm][step.setting] = truth(arm, step.setting)
    return taken, step, done


def truth(arm, setting):
    """Throughput grows with the batch and falls with the wait; p99 is the wait and the batch's own time."""
    return Figures(100 * setting.max_batch**0.7 - 5 * setting.wait_ms, 2 + setting.wait_ms + setting.max_batch / 4)


def test_search_begins_unbatched_then_the_grid_then_the_front():
    taken, stopped, done = searched(Levels(zero=frozenset({"tf"})), truth)
    assert [step.stage for step in taken] == ["unbatched"] + ["grid"] * 9 + ["refined"] * (len(taken) - 10)
    assert all(step.arms == (("tf",) if step.setting == Setting(step.setting.max_batch, 0.0) else ("ts", "tf"))
               for step in taken[1:])  # fmt: skip
    assert not any(setting.wait_ms == 0.0 for setting in done["ts"] if setting != UNBATCHED)
    assert "every neighbour" in stopped or "as many as were asked for" in stopped
    assert len({step.setting for step in taken}) <= 20
    assert Setting(4, 1.0) in done["ts"]
    assert Setting(8, 0.0) in done["tf"]


def test_a_search_that_was_cut_short_goes_on_where_it_was():
    levels = Levels(zero=frozenset({"tf"}))
    whole, _, _ = searched(levels, truth)
    done = {"ts": {}, "tf": {}}
    for step in whole[:7]:
        for arm in step.arms:
            done[arm][step.setting] = truth(arm, step.setting)
    assert batching.following(done, levels, seed=3) == whole[7]
    del done["tf"][whole[6].setting]
    assert batching.following(done, levels, seed=3) == Next(whole[6].setting, "grid", ("tf",))


@pytest.mark.parametrize("most", [2, 12])
def test_search_keeps_to_its_budget(most):
    taken, stopped, done = searched(Levels(most=most, zero=frozenset({"tf"})), truth)
    assert len({step.setting for step in taken}) == most
    assert stopped.startswith(f"{most} settings")
    assert set(done["ts"]) == {setting for setting in done["tf"] if setting == UNBATCHED or setting.wait_ms > 0.0}


def test_best_for_each_objective():
    found = batching.best(
        {UNBATCHED: Figures(100, 4), Setting(8, 1): Figures(500, 8), Setting(64, 5): Figures(600, 40)}
    )
    assert {name: one["max_batch"] for name, one in found.items()} == {"throughput": 64, "latency": 1, "balanced": 8}
    assert all("missing" in one for one in batching.best({UNBATCHED: None}).values())


@pytest.mark.parametrize(("size", "workers", "count"), [(1, 1, 8), (2, 1, 8), (16, 1, 32), (16, 2, 64)])
def test_clients(size, workers, count):
    assert batching.clients(size, workers) == count


def test_moderate_rate_is_the_slower_arms():
    assert batching.moderate([1234.0, 300.0]) == 180
