"""After a run: journals, samples, scrapes and the gateway's records become the run directory.

Runs in the parent once the generator has ended or the window is over; always writes run.json, also for a run that was cut
off. What could not be had is noted as an event, never a reason to lose the rest.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest import open_loop, runfile
from loadtest.admin import AdminError
from loadtest.arrivals import Window
from loadtest.job import Job, read
from loadtest.ledger import Segment, compact, write_segment
from loadtest.options import RunResult
from loadtest.prepare import Prepared
from loadtest.resources import Sampler, Usage, write_resources
from loadtest.summary import Course, Tallies, judge, show
from loadtest.watch import Watch


def finish(
    prepared: Prepared, watch: Watch, sampler: Sampler, measured: tuple[Window | None, int | None], console: Console
) -> RunResult:
    """Gather and write the run directory. measured: the window, and when the run was cut off (None: it was not)."""
    job, run_dir = prepared.job, prepared.run_dir
    window, cut_ns = measured
    if window is None:  # it never began: an empty window at the present
        window = Window(time.time_ns(), time.time_ns(), time.time_ns(), 0)
    if cut_ns is not None:
        window = window.cut(cut_ns)
    watch.close()
    observed = watch.observed
    if prepared.replayed:
        observed.note(prepared.replayed)
    tallies, service, schedule, generator_us = Tallies(window), Tallies(window), None, None
    segments: Sequence[Segment]
    if job.profile.arrivals is None:
        segments, ledger_dropped = _gather_ledger(job, run_dir / "ledger", window, tallies)
        for note in silent_workers(segments, prepared.options.workers):
            observed.note(note)
    else:
        kept = open_loop.gather(job, run_dir / "ledger", window, tallies, service)
        segments, ledger_dropped, schedule, generator_us = kept.segments, 0, kept.schedule, kept.generator_us
        if not segments:
            write_segment(run_dir / "ledger" / "ledger-empty.parquet", [])
        for note in {note for result in kept.results for note in result.notes if "INVALID" not in note}:
            observed.note(note)
    write_resources(run_dir / "resources.parquet", sampler.rows())
    records_dropped = _gather_records(prepared, watch, window)
    weights = lasting_weights(prepared.arms, observed.phases)
    verdict = judge(tallies, job.profile, weights, Course(ledger_dropped, cut_ns is not None, schedule))
    usage = sampler.usage(window.start_ns, window.end_ns)
    facts = runfile.Facts(
        run_id=prepared.run_id,
        job=job,
        window=window,
        config=prepared.config,
        files=prepared.files,
        arms=prepared.arms,
        backends=prepared.backends(),
        usage=usage,
        observed=observed,
        segments=segments,
        ledger_dropped=ledger_dropped,
        records_dropped=records_dropped,
        verdict=verdict,
        schedule=schedule,
        generator_us=generator_us or _cost(usage, tallies.requests),
    )
    content = runfile.document(facts)
    runfile.write(run_dir / "run.json", content)
    shutil.rmtree(job.work, ignore_errors=True)
    _tell(console, (tallies, service), window, content)
    return RunResult(run_dir, verdict.exit_code, verdict.reasons)


def _cost(usage: Sequence[Usage], requests: int) -> float | None:
    """CPU microseconds a request of the generator and this command together, by the samples."""
    seconds = sum(item.cpu_seconds for item in usage if item.role == "generator")
    return 1e6 * seconds / requests if requests and seconds else None


def lasting_weights(arms: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each arm's smallest weight over the run: where it is above 0, the arm must have got requests."""
    weights = {arm: told["weight"] for arm, told in arms.items()}
    for phase in phases:
        for arm, weight in weights.items():
            lost = phase["killed"] not in (None, arm)
            weights[arm] = 0 if lost else min(weight, (phase["weights"] or weights).get(arm) or 0)
    return weights


def silent_workers(segments: Sequence[Segment], workers: int) -> list[str]:
    """A note for each of the generator's workers that sent nothing: its users were not there, or came too late."""
    heard = {segment.path.name.split("-")[1] for segment in segments}
    return [
        f"worker {number} of {workers} sent no request: the load was fewer users than the profile's"
        for number in range(1, workers + 1)
        if str(number) not in heard
    ]


def _gather_ledger(job: Job, directory: Path, window: Window, tallies: Tallies) -> tuple[list[Segment], int]:
    progress = [job.progress_file, *job.work.glob("worker-*.json")]
    dropped = sum((read(path) or {}).get("dropped", 0) for path in progress)
    segments = compact(sorted(job.work.glob("ledger-*.jsonl")), directory, window.start_ns, tallies.see)
    if not segments:  # an empty ledger still has its columns
        write_segment(directory / "ledger-empty.parquet", [])
    return segments, dropped


def _gather_records(prepared: Prepared, watch: Watch, window: Window) -> int | None:
    """Copy the gateway's records of the run's time; how many it dropped in that time, None where it did not tell."""
    if prepared.admin is None:
        return None
    try:
        segments = prepared.admin.flush_records()
        _, problems = runfile.copy_records(segments, prepared.run_dir / "records", window)
        for problem in problems:
            watch.observed.note(problem)
        after = prepared.admin.records().get("dropped")
    except AdminError as error:
        watch.observed.note(f"the gateway's records: {error}")
        return None
    if after is None or prepared.records_dropped is None:
        return after
    return max(0, int(after) - int(prepared.records_dropped))


def _tell(console: Console, counted: tuple[Tallies, Tallies], window: Window, content: Mapping[str, Any]) -> None:
    """Print the run. counted: as in the ledger, and of an open loop by service time."""
    tallies, service = counted
    seconds = max((window.end_ns - window.start_ns) / 1e9, 1e-9)
    title = f"{content['kind']}, {content['loop']} loop: {seconds:.1f} s measured after the warm-up; latencies in milliseconds"
    if service.requests:
        show(console, tallies, seconds, f"{title}, from the intended send")
        show(console, service, seconds, "service times, from the actual send")
        console.print(f"schedule: {content['schedule']['reason']}")
    elif tallies.requests:
        show(console, tallies, seconds, title)
    limits = content["limits"]
    if limits["generator_us"] is not None:
        cores = limits["generator_mean_cores"]
        console.print(f"the generator used {limits['generator_us']:.0f} us of CPU a request, {cores:.0%} of a core")
    for role in limits["limited_by"]:
        cores = limits[f"{role}_busiest_process_cores"]
        way = "; try --direct" if role == "gateway" else ""
        console.print(
            f"limited by the {role}: {cores:.0%} of a core on average, above 70%: not a capacity figure of a server{way}"
        )
