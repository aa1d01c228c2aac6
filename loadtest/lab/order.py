"""In which order the arms of a start are loaded. PURE: seeded, and balanced so that every pair runs AB as often as BA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def turns(arms: Sequence[str], starts: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """The order of the arms in each start: random orders and their reversals in a random sequence.

    With an even number of starts each of two arms comes first in exactly half of them, whichever two they are, and every
    arm's mean place is the middle; an odd one out is drawn. The same for the same seed.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[str, ...]] = []
    for _ in range((starts + 1) // 2):
        order = tuple(arms[i] for i in rng.permutation(len(arms)))
        found += [order, order[::-1]]
    kept = found[:starts] if rng.random() < 0.5 else found[len(found) - starts :]
    return tuple(kept[i] for i in rng.permutation(starts))
