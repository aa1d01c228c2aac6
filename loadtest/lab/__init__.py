"""The lab: experiments that start servers afresh, load one arm at a time, and say what that shows.

A stand (given by the command line; it knows how servers are started) brings up fresh processes; points load them;
`blocks` measures; `comparison`, `searches` and `claims` are made of blocks. Statistics live in gateway.stats.
"""
