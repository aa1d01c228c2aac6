"""`abgate claims`: what is said of the two servers, asked of this machine, with intervals.

table reads loadtest/claims.toml; plan groups its comparisons so that one series of fresh starts serves all of them; measure and
the scenarios act; evaluate and answer decide (PURE); words tells. Which servers are started, and where a variant's files lie,
is handed in (`Bench`).
"""
