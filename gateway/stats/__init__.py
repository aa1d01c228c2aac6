"""Statistics of the comparison, PURE: numbers in, a result or a `NotComputable` with its reason out.

No I/O, no clock, no logging, and no number that stands for "unknown". numpy and scipy are needed here (extra `report`);
the data plane never imports this package.
"""
