"""Points: one load on one target for one fixed time, by an asyncio generator that keeps a schedule or a concurrency.

What a point sends is fixed before it begins (`spec`); it runs in a process of its own and leaves `point.json` and
`requests.parquet` in its folder. Nothing here knows arms, servers' starts or verdicts: that is loadtest.lab.
"""
