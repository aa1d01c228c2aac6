"""The only place that reads clocks.

Durations come from the monotonic clock; the wall clock stamps records and nothing else. Pure code takes times as arguments.
"""

from __future__ import annotations

import time

monotonic_ns = time.perf_counter_ns
monotonic = time.monotonic
wall_ns = time.time_ns
