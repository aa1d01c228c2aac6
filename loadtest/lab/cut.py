"""Where a recording is cut, and the BLOCK that comes out. PURE: recordings in, values out.

Rule: the warm-up ends by a change-point rule (gateway/stats/warmup.py), never before the planned one and never later than the
slack allows; then the planned duration is kept whatever it looks like. A drift inside it is a finding, not a reason to stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.stats.result import NotComputable
from gateway.stats.schedule import LATE_LIMIT, TOLERANCE_NS
from gateway.stats.warmup import MIN_BATCHES, MIN_PER_BIN, MSER_BATCH, Drift, drift, warm_up
from loadtest.lab.figures import batches, quantiles, rate_bounds, usage
from loadtest.lab.recording import GENERATOR, Recording
from loadtest.lab.threads import QUIET
from loadtest.points.spec import Requests
from loadtest.resources import MACHINE

CORE_LIMIT = 0.7
"""A generator or gateway that is busier than this share of a core may be what was measured."""

MIN_REQUESTS = MIN_BATCHES * MSER_BATCH * MIN_PER_BIN
"""What the end of warm-up can be looked for in."""

OTHERS_LIMIT = 0.2
"""More cores than this used by processes that are none of the lab's is told with the block."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Seconds to discard from the recording's first due time on; note: what is to be said about the choice."""

    seconds: float
    note: str | None = None


def own_discard(recording: Recording) -> Cut:
    """Where this recording's warm-up ends: at least the planned seconds, at most those and the slack."""
    plan, requests = recording.plan, recording.requests
    least, most = plan.load.warmup, plan.load.warmup + plan.room
    if requests is None or plan.room == 0.0:
        return Cut(least)
    latency = service_ms(requests)
    sent = requests.sent_ns >= 0
    seconds = (requests.due_ns[sent] - recorded_from(recording)) / 1e9
    found = warm_up(seconds, latency[sent])
    if isinstance(found, NotComputable):
        # many requests without an end of warm-up have not settled; of few nobody can tell
        chosen = most if seconds.size >= MIN_REQUESTS else least
        return Cut(chosen, f"the end of warm-up is not known, {chosen:g} s are discarded: {found.reason}")
    if found.seconds > most:
        return Cut(most, f"warm-up seems to last {found.seconds:.2f} s, the recording allows {most:g} s")
    return Cut(max(least, found.seconds))


def recorded_from(recording: Recording) -> int:
    """Wall clock at which the recording's load began, in ns."""
    assert recording.result is not None
    return recording.result.warmup_start_ns


def service_ms(requests: Requests) -> NDArray[np.float64]:
    """Latency from the actual send, ms, shape [n]; +inf where no good answer came."""
    return _latency(requests, requests.sent_ns)


def intended_ms(requests: Requests) -> NDArray[np.float64]:
    """Latency from the intended send, ms, shape [n]; +inf where no good answer came, dropped ones too."""
    return _latency(requests, requests.due_ns)


def _latency(requests: Requests, since_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    good = (requests.done_ns >= 0) & (requests.sent_ns >= 0) & (requests.error == "")
    return np.where(good, (requests.done_ns - since_ns) / 1e6, np.inf)


def select(requests: Requests, mask: NDArray[np.bool_]) -> Requests:
    """The requests of a mask, in their order."""
    names = Requests.__dataclass_fields__
    return Requests(**{name: getattr(requests, name)[mask] for name in names})


def block_document(recording: Recording, cut: Cut) -> dict[str, Any]:
    """The BLOCK of lab/spec.py for a recording and its discard."""
    plan, load = recording.plan, recording.plan.load
    closed = load.kind == "closed"
    rate = load.course[0].from_rate if load.course else None
    told: dict[str, Any] = {
        "id": plan.id,
        "replicate": plan.replicate,
        "order": plan.order,
        "name": plan.name,
        "arm": recording.arm.spec.name,
        "path": plan.path,
        "protocol": plan.protocol,
        "wire": recording.wire,
        "mode": "closed loop" if closed else "open loop",
        "load": {
            "concurrency": load.concurrency,
            "rate": rate,
            "arrivals": None if closed else load.arrivals,
            "duration": load.duration,
            "warmup": load.warmup,
        },
        "start_seconds": recording.started_seconds,
        "discarded_s": cut.seconds,
        "notes": [cut.note] if cut.note else [],
        "folder": f"blocks/{plan.id}",
    }
    if recording.requests is None or recording.result is None:
        return told | _nothing(recording)
    start_ns = recorded_from(recording) + round(cut.seconds * 1e9)
    return told | _measured(recording, cut, start_ns)


def _nothing(recording: Recording) -> dict[str, Any]:
    """The rest of a block that measured nothing."""
    counts = dict.fromkeys(("n", "errors", "late", "dropped", "wrong", "judged"), 0)
    rates = dict.fromkeys(("offered", "achieved", "goodput"), 0.0)
    names = (
        "goodput_bounds",
        "upstream_ms",
        "gateway_ms",
        "codec_ms",
        "queue_ms",
        "batches",
        "generator_us",
        "cpu_us",
        "drift",
    )
    none = quantiles(np.empty(0))
    reasons = list(recording.faults) or ["nothing was measured"]
    return {
        **counts,
        **rates,
        "service_ms": none,
        "intended_ms": none,
        **dict.fromkeys(names),
        "cpu": {},
        "valid": False,
        "reasons": reasons,
        "capacity": {"valid": False, "reasons": reasons},
    }


def _measured(recording: Recording, cut: Cut, start_ns: int) -> dict[str, Any]:
    requests, result, plan = recording.requests, recording.result, recording.plan
    assert requests is not None
    assert result is not None
    end_ns = start_ns + round(plan.load.duration * 1e9)
    inside = select(requests, (requests.due_ns >= start_ns) & (requests.due_ns < end_ns))
    seconds = (end_ns - start_ns) / 1e9
    cpu = usage(recording.resources, start_ns, end_ns)
    others = strangers(cpu)
    cpu[GENERATOR] = {**cpu.get(GENERATOR, {"rss_bytes": 0}), "cores": result.generator_cores}
    counts = _counts(inside, plan.load.kind == "open")
    rates = _rates(requests, start_ns, end_ns, counts["n"])
    answered = max(1.0, rates["achieved"] * seconds)
    server = cpu.get(f"arm {recording.arm.spec.name}")
    grouped, extra = batches(inside.batch_size, recording.scrapes, recording.arm.spec.batch.max_batch)
    moved = _drift(inside)
    told: dict[str, Any] = {
        **counts,
        **rates,
        "goodput_bounds": rate_bounds(requests.done_ns[requests.error == ""], start_ns, end_ns),
        **_latencies(inside, plan.load.kind == "closed"),
        "batches": grouped,
        "server": extra,
        "cpu": cpu,
        "others_cores": others,
        "cpu_us": 1e6 * server["cores"] * seconds / answered if server and rates["achieved"] else None,
        "generator_us": result.generator_us,
        "drift": moved,
    }
    told["notes"] = [cut.note] if cut.note else []
    if counts["dropped"]:
        told["notes"].append(
            f"{counts['dropped']} of {counts['n']} arrivals found no free place and were dropped: unanswered"
        )
    if others is not None and others > OTHERS_LIMIT:
        told["notes"].append(f"other processes of this machine used {others:.2f} cores: the figures are theirs as well")
    if recording.compiling is not None and recording.compiling > QUIET:
        told["notes"].append(
            f"the server's just-in-time compilers used {recording.compiling:.2f} cores meanwhile: it was still getting faster"
        )
    if told["queue_ms"] is None and "queue_mean_ms" in extra:
        told["queue_ms"] = {
            "n": None,
            "mean": extra["queue_mean_ms"],
            "source": "the server's counters, warm-up included",
        }
    unlike = counts["wrong"] if plan.check == "reference" else 0  # a wrong class is the model's own mistake
    return told | validity(recording.faults, counts, cpu, plan.path, others, unlike)


def strangers(cpu: dict[str, dict[str, Any]]) -> float | None:
    """Takes the machine's own entry out of "cpu" and returns the cores of processes that are none of the lab's, None unknown."""
    machine = cpu.pop(MACHINE, None)
    if machine is None:
        return None
    return max(0.0, float(machine["cores"]) - sum(float(used["cores"]) for used in cpu.values()))


def _counts(inside: Requests, opened: bool) -> dict[str, int]:
    sent = inside.sent_ns >= 0
    late = sent & (inside.sent_ns - inside.due_ns > TOLERANCE_NS) if opened else np.zeros_like(sent)
    return {
        "n": int(sent.size),
        "errors": int((sent & (inside.error != "")).sum()),
        "late": int(late.sum()),
        "dropped": int((~sent).sum()),
        "wrong": int((inside.correct == 0).sum()),
        "judged": int((inside.correct >= 0).sum()),
    }


def _rates(requests: Requests, start_ns: int, end_ns: int, arrivals: int) -> dict[str, float]:
    """Arrivals by due time; answers by the time they came, whenever they were asked for."""
    seconds = (end_ns - start_ns) / 1e9
    came = (requests.done_ns >= start_ns) & (requests.done_ns < end_ns)
    good = came & (requests.error == "")
    return {"offered": arrivals / seconds, "achieved": int(came.sum()) / seconds, "goodput": int(good.sum()) / seconds}


def _latencies(inside: Requests, closed: bool) -> dict[str, Any]:
    sent = inside.sent_ns >= 0
    service = quantiles(service_ms(inside)[sent])
    told: dict[str, Any] = {"service_ms": service, "intended_ms": service if closed else quantiles(intended_ms(inside))}
    for name in ("upstream", "gateway", "codec", "queue"):
        values = getattr(inside, f"{name}_ns")
        known = values >= 0
        told[f"{name}_ms"] = quantiles(values[known] / 1e6, bounds=name == "upstream") if known.any() else None
    return told


def _drift(inside: Requests) -> str | None:
    latency = service_ms(inside)
    found = drift(inside.due_ns / 1e9, latency) if latency.size else NotComputable("no requests")
    if not isinstance(found, Drift) or not found.found:
        return None
    return (
        f"the latency's level changes {found.at:.1f} s into the window, from {found.before:.3g} to {found.after:.3g} ms "
        f"(p <= {found.p_value:g})"
    )


def validity(
    faults: tuple[str, ...],
    counts: Mapping[str, int],
    cpu: Mapping[str, Mapping[str, Any]],
    path: str,
    others: float | None = None,
    unlike: int = 0,
) -> dict[str, Any]:
    """Whether the block says what it seems to say, and apart from that whether it may tell a capacity.

    Late arrivals are the generator's doing and make the load another one; dropped ones found no free place because the server
    did not keep up: they are in n, and unanswered in the intended latency. unlike: judged answers that were not the
    reference's; a server that answers something else is not compared by its speed.
    """
    reasons = list(faults)
    n, late = counts["n"], counts["late"]
    if n == 0:
        reasons.append("no request fell into the window")
    elif late > LATE_LIMIT * n:
        reasons.append(
            f"{late} of {n} arrivals were sent late ({100 * late / n:.2g}%), the limit is {100 * LATE_LIMIT:g}%"
        )
    if n and counts["errors"] + counts["dropped"] == n:
        reasons.append("no request got a good answer")
    if unlike:
        reasons.append(f"{unlike} of {counts['judged']} judged answers were unlike the reference")
    roles = [GENERATOR] + (["gateway"] if path == "gateway" else [])
    hint = {GENERATOR: "", "gateway": "; `--direct` goes past it"}
    busy = [
        f"the {role} used {cpu[role]['cores']:.2f} of a core, above {CORE_LIMIT:g}{hint[role]}"
        for role in roles
        if role in cpu and cpu[role]["cores"] > CORE_LIMIT
    ]
    if others is not None and others > OTHERS_LIMIT:
        busy.append(f"other processes of this machine used {others:.2f} cores")
    return {
        "valid": not reasons,
        "reasons": reasons,
        "capacity": {"valid": not reasons and not busy, "reasons": [*reasons, *busy]},
    }
