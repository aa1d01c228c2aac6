"""What a point sends: every body built before the run, the seeded order of bodies and units, and what judges answers.

Reads the payloads' file once. Nothing here knows sockets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ConfigError
from gateway.protocol.signature_file import load as load_signature
from loadtest import payloads
from loadtest.answers import Judge
from loadtest.arrivals import choice_draws, generator, unit_draws, unit_names, zipf_cumulative
from loadtest.points.spec import PointSpec
from loadtest.profiles import Check, Profile


@dataclass(frozen=True)
class Traffic:
    """bodies[i] is payload i on the wire; draws yields (payload, unit's index) without end, in the same order for every arm.

    rows: of each payload, int32 [payloads]; name: the beginning of request ids, another one for every point. Of a replay
    also heads: of each payload up to content-length's value; methods: each payload's gRPC method; due: ns, int64 [arrivals].
    """

    bodies: tuple[bytes, ...]
    payloads: tuple[payloads.Payload, ...]
    rows: NDArray[np.int32]
    draws: Iterator[tuple[int, int]]
    units: Sequence[str]
    judge: Judge | None
    output: str | None
    name: str
    heads: tuple[bytes, ...] | None = None
    methods: tuple[str, ...] | None = None
    due: NDArray[np.int64] | None = None


def prepare(spec: PointSpec, salt: str) -> Traffic:
    """Read, check and build everything; raises ConfigError and SignatureError. salt: what tells this point from others."""
    signature = load_signature(spec.signature) if spec.signature else None
    dataset = payloads.load_dataset(spec.payloads, spec.split, signature)
    outputs = tuple(item.name for item in signature.outputs) if signature else ()
    output = spec.output or (outputs[0] if outputs else None)
    check = Check(kind=spec.check, output=output, rtol=spec.rtol, atol=spec.atol, every=spec.every)
    if problems := payloads.check_problems(check, dataset, outputs):
        raise ConfigError([f"{spec.payloads}: {problem}" for problem in problems])
    profile = Profile.model_validate(
        {
            "model": spec.model,
            "users": 1,
            "duration": 1,
            "mix": {spec.protocol: 1},
            "rows": [{"rows": rows, "weight": weight} for rows, weight in spec.rows],
            "seed": spec.seed,
        }
    )
    grpc = spec.protocol == "tfs-grpc"
    torchserve = spec.target.kind == "torchserve"
    wire = payloads.Wire(spec.model, spec.signature_name, json=not grpc, proto=grpc, torchserve=torchserve)
    groups = payloads.build(dataset, profile, wire)
    flat = tuple(payload for group in groups for payload in group.payloads)
    return Traffic(
        bodies=tuple(payload.proto if grpc else payload.json for payload in flat),
        payloads=flat,
        rows=np.array([payload.rows for payload in flat], dtype=np.int32),
        draws=_draws(spec, [len(group.payloads) for group in groups], [group.weight for group in groups]),
        units=unit_names(spec.seed, spec.population),
        judge=Judge(check, dataset, output) if spec.check != "off" else None,
        output=output,
        name=hashlib.sha256(f"{salt} {spec.seed} {spec.stream}".encode()).hexdigest()[:12],
    )


def _draws(spec: PointSpec, sizes: list[int], weights: list[float]) -> Iterator[tuple[int, int]]:
    rng = generator(spec.seed, 4, spec.stream)
    zipf = None if spec.exponent is None else zipf_cumulative(spec.population, spec.exponent)
    begins = [sum(sizes[:number]) for number in range(len(sizes))]
    for unit, (group, member) in zip(
        unit_draws(rng, spec.population, zipf), choice_draws(rng, sizes, weights), strict=True
    ):
        yield begins[group] + member, unit
