"""`abgate loadtest slo`, `sweep` and `batching`: options, a stand and a progress bar for loadtest.lab's searches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gateway.cli_lab import find_run, lab_options
from gateway.errors import AbgateError, ConfigError

if TYPE_CHECKING:
    from loadtest.lab.batching import Levels
    from loadtest.lab.session import Bench, Step
    from loadtest.lab.spec import ArmSpec

Command = Callable[..., Any]
Json = dict[str, Any]


def seconds(value: Any) -> float:
    """Seconds of 10s, 500ms, 2m; raises click.BadParameter."""
    from gateway.config_units import duration

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def a_share(value: str) -> float:
    """0.001 or 0.1%; raises click.BadParameter unless it lies between 0 and 1."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*(%?)\s*", value)
    try:
        found = float(match[1]) / (100.0 if match[2] else 1.0) if match else 0.0
    except ValueError:
        found = 0.0
    if not 0.0 < found < 1.0:
        raise click.BadParameter(f"{value!r}: write a share such as 0.1% or 0.001")
    return found


def _seconds(context: Any, parameter: Any, value: Any) -> Any:
    return None if value is None else seconds(value)


def _share(context: Any, parameter: Any, value: Any) -> Any:
    return None if value is None else a_share(value)


def search_options(
    point: str, warmup: str, protocol: str = "tfs-rest", direct: bool = False
) -> Callable[[Command], Command]:
    """What every search has beside the lab's options, with its own defaults (times of a point in words such as 10s)."""
    options = [
        click.option("--protocol", type=click.Choice(["tfs-rest", "tfs-grpc"]), default=protocol, show_default=True,
                     help="The client's; gRPC carries tensors as bytes to both servers, REST as JSON."),
        click.option("--direct/--gateway", default=direct, show_default=True,
                     help="Past the gateway, each server in its own wire format, or through the gateway."),
        click.option("--point", callback=_seconds, default=point, show_default=True, help="Of a measured point."),
        click.option("--warmup", callback=_seconds, default=warmup, show_default=True, help="Before each point."),
        click.option("--seed", type=int, default=1, show_default=True, help="Of orders, payloads and arrivals."),
    ]  # fmt: skip

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@click.argument("model", required=False)
@lab_options
@search_options("10s", "1s")
@click.option("--p99", callback=_seconds, metavar="20ms", help="The latency p99 may have.")
@click.option("--errors", callback=_share, metavar="0.1%", help="The share of failed requests there may be.")
@click.option("--price-per-core-hour", type=click.FloatRange(min=0), help="For the cost per million inferences.")
@click.option(
    "--starts",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Fresh starts; a verdict needs 6 (pairs).",
)
@click.option(
    "--points", type=click.IntRange(min=4), default=8, show_default=True, help="Rates round each arm's bracket."
)
@click.option("--probe", callback=_seconds, default="3s", show_default=True, help="Of a probe that only brackets.")
@click.option("--start-rate", type=click.FloatRange(min=1), default=64, show_default=True, help="Of the first probe.")
@click.option(
    "--aa/--no-aa",
    default=True,
    show_default=True,
    help="Measure the baseline twice: twins that differ void the ratio.",
)
@click.option(
    "--margin", callback=_share, default="5%", show_default=True, help="A difference below it does not matter."
)
def slo(model: str | None, resume: str | None, **given: Any) -> int:
    """How many requests per second and core each server of MODEL carries at a p99, and what a million of them cost."""
    from gateway.cli_searches_show import show_slo, slo_verdict
    from loadtest.lab.comparison import twin_of
    from loadtest.lab.slo import Objective, Search
    from loadtest.lab.slo_results import Terms
    from loadtest.lab.slo_run import SloRun, Times

    book, model, given = _asked(resume, "slo", model, given)
    p99, price = given["p99"], given["price_per_core_hour"]
    if p99 is None:
        raise ConfigError(["--p99: how late may a hundredth of the answers be, for example --p99 20ms"])
    question = (
        f"How many requests per second and core does each server of {model} carry with p99 at most {1e3 * p99:g} ms?"
    )
    arms = _arms(model, given)
    twin = twin_of(arms) if given["aa"] and len(arms) == 2 else None
    arms = (*arms, twin) if twin else arms
    terms = Terms(
        objective=Objective(1e3 * p99, given["errors"]),
        arms=tuple(arm.name for arm in arms),
        starts=given["starts"],
        seed=given["seed"],
        path=_path(given),
        protocol=given["protocol"],
        cores={arm.name: len(arm.resources.cores) if arm.resources.cores else None for arm in arms},
        price=price,
        margin=given["margin"],
        aa=twin.name if twin else "",
    )
    times = Times(given["probe"], given["point"], given["warmup"], given["points"])
    with _bench("slo", question, model, arms, given, book, terms.aa) as bench:
        search = Search(given["start_rate"])
        results = SloRun(bench, terms, search, times).run()
        return _end(bench, slo_verdict(results), show_slo)


@click.command()
@click.argument("model", required=False)
@lab_options
@search_options("8s", "1s")
@click.option("--concurrency", metavar="1:64", help="Closed loop: powers of two up to the second, or a list 1,4,16.")
@click.option("--rates", metavar="100:1600", help="Open loop, per second: each twice the one before, or a list.")
@click.option("--starts", type=click.IntRange(min=1), default=1, show_default=True, help="Fresh starts, a curve each.")
def sweep(model: str | None, resume: str | None, **given: Any) -> int:
    """Throughput-latency curves of each arm of MODEL: over concurrency and over rate (default: both), one arm at a time."""
    from gateway.cli_searches_show import show_sweep, sweep_verdict
    from loadtest.lab.sweep import levels
    from loadtest.lab.sweep_run import SweepPlan, SweepRun

    book, model, given = _asked(resume, "sweep", model, given)
    concurrency, rates = given["concurrency"], given["rates"]
    both = concurrency is None and rates is None
    try:
        closed, stop = levels(concurrency or "1:64") if concurrency or both else ((), False)
        offered = levels(rates, whole=False)[0] if rates else ()
    except ValueError as error:
        raise ConfigError([f"--{'concurrency' if rates is None else 'rates or --concurrency'}: {error}"]) from error
    plan = SweepPlan(
        path=_path(given),
        protocol=given["protocol"],
        concurrency=closed,
        stop=stop,
        rates=offered,
        open_loop=bool(rates) or both,
        point=given["point"],
        warmup=given["warmup"],
        starts=given["starts"],
    )
    question = f"How do throughput and latency of each server of {model} grow with the load?"
    with _bench("sweep", question, model, _arms(model, given), given, book) as bench:
        results = SweepRun(bench, plan).run()
        return _end(bench, sweep_verdict(results), show_sweep)


@click.command()
@click.argument("model", required=False)
@lab_options
@search_options("6s", "2s", protocol="tfs-grpc", direct=True)
@click.option(
    "--batches", metavar="2:64", default="2:64", show_default=True, help="Rows of a batch: a range or a list."
)
@click.option(
    "--waits", metavar="1,2,5,10", default="1,2,5,10", show_default=True, help="Milliseconds; 0 is TensorFlow's alone."
)
@click.option("--settings", type=click.IntRange(min=2), default=20, show_default=True, help="The most to measure.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="The open rate; default: 0.6 of unbatched.")
def batching(model: str | None, resume: str | None, **given: Any) -> int:
    """Search the maximum batch size and wait that serve MODEL best on each server; prints what to paste into their files."""
    from gateway.cli_searches_show import batching_verdict, fragments, show_batching
    from loadtest.lab.batching_run import BatchingPlan, BatchingRun

    book, model, given = _asked(resume, "batching", model, given)
    arms = _arms(model, given)
    plan = BatchingPlan(
        path=_path(given),
        protocol=given["protocol"],
        levels=_levels(given, arms),
        rate=given["rate"],
        point=given["point"],
        warmup=given["warmup"],
    )
    question = f"Which maximum batch size and wait serve {model} best on each server?"
    with _bench("batching", question, model, arms, given, book) as bench:
        results = BatchingRun(bench, plan, fragments).run()
        return _end(bench, batching_verdict(results), show_batching)


def _levels(given: Mapping[str, Any], arms: tuple[ArmSpec, ...]) -> Levels:
    from loadtest.lab.batching import Levels
    from loadtest.lab.sweep import levels

    problems = []
    found: dict[str, tuple[float, ...]] = {}
    for name, whole in (("batches", True), ("waits", False)):
        try:
            found[name] = levels(given[name], whole)[0]
        except ValueError as error:
            problems.append(f"--{name}: {error}")
    if "batches" in found and min(found["batches"]) < 2:
        problems.append("--batches: from 2 rows on; 1 is measured in any case")
    if problems:
        raise ConfigError(problems)
    zero = frozenset(arm.name for arm in arms if arm.kind == "tensorflow_serving")
    return Levels(tuple(int(value) for value in found["batches"]), found["waits"], given["settings"], zero)


def _path(given: Mapping[str, Any]) -> Literal["gateway", "direct"]:
    return "direct" if given["direct"] else "gateway"


def _arms(model: str, given: dict[str, Any]) -> tuple[ArmSpec, ...]:
    from gateway.cli_lab import arm_specs

    return arm_specs(model, given)


def _asked(resume: str | None, kind: str, model: str | None, given: Json) -> tuple[Any, str, Json]:
    """The document of a run that goes on (else None), and the model and options: its own or those given."""
    from loadtest.lab.session import Book

    book = None
    if resume:
        book = Book.resumed(find_run(resume, given["runs"]), kind)
        options = book.document["plan"]["options"]
        model, given = options["model"], options | {"runs": given["runs"], "artifacts": Path(options["artifacts"])}
    if model is None:
        raise ConfigError([f"MODEL: name a model, such as digits, or a run to go on with (`{kind} --resume RUN`)"])
    return book, model, given


@contextmanager
def _bench(
    kind: str,
    question: str,
    model: str,
    arms: tuple[ArmSpec, ...],
    given: Mapping[str, Any],
    book: Any = None,
    aa: str = "",
) -> Iterator[Bench]:
    """Everything a search acts with; its end leaves no process, and whatever ends it is in the document."""
    from gateway.cli_lab import interruptible, new_run, progress
    from gateway.cli_stand import LocalStand
    from loadtest.lab import document
    from loadtest.lab.comparison import check_of, inputs_of
    from loadtest.lab.session import Bench, Book, arms_before
    from loadtest.lab.spec import StandError
    from loadtest.lab.taking import Taking

    payloads, signature = inputs_of(given["artifacts"] / model, model)
    taking = Taking(payloads, signature, given["protocol"], _path(given), check_of(payloads))
    if book is None:
        run_dir = new_run(given["runs"], kind)
        options = {"model": model} | {key: _plain(value) for key, value in given.items()}
        plan = {"options": options, "seed": given["seed"], "check": taking.check}
        start = document.begin(run_dir, kind, question, plan, model, payloads)
        book = Book.new(run_dir, start | {"arms": arms_before(arms, aa)})
    click.echo(f"run: {book.folder}", err=True)
    with interruptible(), progress(kind) as bar:

        def tell(step: Step) -> None:
            bar(step.text, step.done / step.total)

        try:
            yield Bench(LocalStand(), taking, arms, book, given["seed"], tell, taking.prime)
        except StandError as error:
            book.end(f"ended early: {error}", 1, [str(error)], complete=False)
            raise AbgateError(str(error)) from error
        except AbgateError as error:
            book.end(f"ended early: {error}", 1, [str(error)], complete=False)
            raise
        except KeyboardInterrupt:
            book.end("interrupted", 2, ["interrupted before it was complete"], complete=False)
            click.echo(f"to go on: abgate loadtest {kind} --resume {book.folder.name}", err=True)
            raise


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _end(bench: Bench, verdict: Json, show: Callable[[Json, Any], None]) -> int:
    """Write the verdict, print the table; returns the exit code."""
    from rich.console import Console

    book = bench.book
    book.end(verdict["text"], verdict["code"], verdict["reasons"], complete=True)
    console = Console(width=None if Console().is_terminal else 160)
    show(book.document, console)
    console.print(verdict["text"], markup=False, soft_wrap=True)
    for reason in verdict["reasons"]:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
    console.print(f"run: {book.folder}", markup=False, soft_wrap=True)
    return int(verdict["code"])
