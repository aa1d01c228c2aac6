"""What run.json says, brought into the report's shape: arms, parity, processes, limits, events, what was not tested. PURE.

run.json of a run that was cut short may lack any part; every reader here takes that and says what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.reports import jsonable
from gateway.reports.jsonable import Json

UNKNOWN = "not in run.json"
DEFAULT_ERROR_LIMIT = 0.01
DEFAULT_RIGHT = {"label": 0.9, "reference": 1.0}


def part(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A mapping inside a mapping; empty where it is missing or something else."""
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def error_limit(profile: Mapping[str, Any]) -> float:
    """The largest tolerated share of failed requests: the profile's, else 1%."""
    value = part(profile, "limits").get("errors")
    return DEFAULT_ERROR_LIMIT if value is None else float(value)


def right_limit(profile: Mapping[str, Any]) -> float | None:
    """The smallest tolerated share of right answers: the profile's, else 90% for labels and all for references."""
    value = part(profile, "limits").get("correct")
    return DEFAULT_RIGHT.get(str(part(profile, "check").get("kind"))) if value is None else float(value)


def arm_facts(name: str, arm: Mapping[str, Any], implementations: Mapping[str, int]) -> Json:
    """How an arm was served. The gateway's records tell the implementation where run.json does not."""
    seen = ", ".join(implementations)
    return {
        "name": name,
        "backend": arm.get("backend", UNKNOWN),
        "kind": arm.get("kind", UNKNOWN),
        "implementation": arm.get("implementation") or seen or UNKNOWN,
        "stand_in": bool(arm.get("stand_in", "stand-in" in seen)),
        "cores": arm.get("cores"),
        "threads": arm.get("threads"),
        "workers": arm.get("workers"),
        "weight": arm.get("weight"),
        "wire": dict(part(arm, "wire")),
    }


def parity(manifest: Mapping[str, Any]) -> Json:
    """The proof that both arms serve the same model: verdict, tolerance and the differences of each artefact."""
    if not manifest:
        return {"status": "unknown", "reason": "no manifest in run.json", "artifacts": []}
    rows = part(manifest, "inputs").get("rows")
    proofs = [
        _artefact(name, value, rows)
        for name, value in part(manifest, "artifacts").items()
        if isinstance(value, Mapping)
    ]
    status = "unknown" if manifest.get("ok") is None else "passed" if manifest["ok"] else "failed"
    return {
        "status": status,
        "reason": "; ".join(map(str, manifest.get("failures") or [])),
        "tolerance": manifest.get("tolerance"),
        "reference": manifest.get("reference"),
        "artifacts": proofs,
    }


def _artefact(name: str, value: Mapping[str, Any], rows: Any) -> Json:
    return {
        "name": name,
        "passed": value.get("ok"),
        "inputs": rows,
        "max_abs_diff": value.get("max_abs_diff"),
        "argmax_agreement": value.get("argmax_agreement"),
        "export_path": value.get("export_path"),
        "versions": dict(part(value, "versions")),
        "sha256": value.get("sha256"),
    }


def processes(document: Mapping[str, Any], sampled: Mapping[str, Mapping[str, float]]) -> list[Json]:
    """CPU and memory of every process: run.json's totals over the window, else the samples' mean and maximum."""
    found: dict[str, Json] = {}
    listed = document.get("processes")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping):
            found[str(item.get("role"))] = {
                "role": str(item.get("role")),
                "mean_cores": item.get("mean_cores"),
                "cpu_seconds": item.get("cpu_seconds"),
                "max_rss_bytes": item.get("max_rss_bytes"),
            }
    for role, numbers in sampled.items():
        entry = found.setdefault(role, {"role": role, "mean_cores": None, "cpu_seconds": None, "max_rss_bytes": None})
        for key in ("mean_cores", "max_rss_bytes"):
            entry[key] = numbers[key] if entry[key] is None else entry[key]
        entry["max_cores"] = numbers["max_cores"]
    return list(found.values())


def phases(document: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Arm weights per phase; under the kill switch one arm has all of it. Empty where run.json tells no phases."""
    listed = part(document, "gateway").get("phases")
    result: dict[int, dict[str, float]] = {}
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping) and isinstance(item.get("weights"), Mapping) and item.get("phase") is not None:
            weights = {str(arm): float(weight or 0) for arm, weight in item["weights"].items()}
            if killed := item.get("killed"):
                weights = {arm: float(arm == killed) for arm in weights}
            result[int(item["phase"])] = weights
    return result


def load_verdict(document: Mapping[str, Any]) -> tuple[int, list[str]]:
    """What the load test itself found: its exit code and reasons; (0, []) where it tells nothing."""
    told = part(document, "verdict")
    return int(told.get("exit_code") or 0), [str(reason) for reason in told.get("reasons") or []]


def events(document: Mapping[str, Any], start_ns: int | None) -> list[Json]:
    """What happened to the servers meanwhile, seconds relative to the start of the window."""
    listed = document.get("events")
    return [
        {
            "what": str(item.get("what")),
            "offset_s": (item["time_ns"] - start_ns) / 1e9 if start_ns is not None and item.get("time_ns") else None,
        }
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, Mapping)
    ]


def not_tested(document: Mapping[str, Any], arms: list[Json]) -> list[str]:
    """What a reader might take for shown and is not."""
    profile = part(document, "profile")
    lines = []
    stand_ins = [arm for arm in arms if arm["stand_in"]]
    for arm in stand_ins:
        lines.append(f"The real server behind {arm['name']}: {arm['implementation']} answered in its place.")
    if document.get("kind") == "live split" and len(arms) > 1:
        lines.append(
            "Each server's capacity: both shared the machine's cores with each other, the gateway and the generator."
        )
    lines.append(
        "Variation from run to run: this is one run; its intervals cover the requests of this run, no A/A noise floor."
    )
    closed = profile.get("arrivals") is None
    how = (
        "the generator sent the next request after the answer"
        if profile.get("rate") is None
        else "a user waits for its answer"
    )
    overload = (
        f"Latency under overload: {how} and latency counts from the actual send, so a stall delays requests instead of "
        "queueing them (coordinated omission is not corrected) and tails are understated."
    )
    lines += [overload] if closed else []
    lines.append("A network: client, gateway and servers talked over loopback.")
    mix = part(profile, "mix")
    unused = [p for p in ("tfs-rest", "tfs-grpc") if mix and not mix.get(p)]
    if unused:
        lines.append(f"Clients speaking {' and '.join(unused)}.")
    lines.append(
        "Other models, payload sizes, batching settings, thread counts and accelerators than the ones named here."
    )
    lines.append("Cold start and model reload: the warm-up was left out of every number.")
    return lines


def absent(document: Mapping[str, Any], key: str) -> Any:
    """A value of run.json, or an object that says it is missing."""
    value = document.get(key)
    return jsonable.missing(UNKNOWN) if value in (None, "") else value
