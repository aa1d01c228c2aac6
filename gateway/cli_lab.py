"""`abgate loadtest compare` and `aa`: options, a stand and a progress bar for loadtest.lab; exit codes are the verdict's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from loadtest.lab.spec import ArmSpec, BatchRule, Resources

DEFAULT_ARMS = ("torchserve=torchserve:torchscript", "tfserving=tensorflow_serving:savedmodel")
RUNS = Path(".abgate/runs")


def lab_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that every experiment of the lab has: arms, equal resources for them, places, going on."""
    options = [
        click.option("--arm", "arms", multiple=True, metavar="NAME=KIND:VARIANT",
                     help="An arm, the first is the baseline. Default: " + ", ".join(DEFAULT_ARMS) + "."),
        click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each worker."),
        click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Of each server."),
        click.option("--cores", metavar="0,1", help="That each server may use; default: all."),
        click.option("--max-batch", type=click.IntRange(min=1), default=1, show_default=True, help="Rows a batch."),
        click.option("--max-wait-ms", type=click.FloatRange(min=0), default=0, show_default=True,
                     help="The longest a request waits for mates."),
        click.option("--artifacts", type=click.Path(path_type=Path), default="model_store/artifacts", show_default=True,
                     help="Where the models' artefacts lie."),
        click.option("--runs", type=click.Path(path_type=Path), default=RUNS, show_default=True, help="Where runs lie."),
        click.option("--resume", metavar="RUN", help="Go on with a run: its directory or id. Other options are its own."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("model", required=False)
@lab_options
@click.option(
    "--experiment",
    default="servers",
    show_default=True,
    help="Loads, margins, primary metric: a file or a shipped name.",
)
@click.option("--replicates", type=click.IntRange(min=1), help="Fresh starts of every arm; default: the experiment's.")
@click.option("--direct", is_flag=True, help="Past the gateway, each server in its own wire format.")
@click.option("--full", is_flag=True, help="Long windows instead of a few seconds.")
@click.option("--seed", type=int, help="Of orders, payloads and arrivals; default: the experiment's.")
def compare(model: str | None, experiment: str, replicates: int | None, direct: bool, full: bool, seed: int | None,
            **given: Any) -> int:  # fmt: skip
    """Compare arms of MODEL on fresh server starts: A better, B better, no difference beyond the margin, or cannot tell.

    Judged by the paired differences of at least 6 starts against the margin the experiment names, after an A/A check.
    """
    from gateway.cli_stand import LocalStand
    from loadtest.lab import comparison, plan

    if given["resume"]:
        run_dir = find_run(given["resume"], given["runs"])
        with progress(f"going on with {run_dir.name}") as tell, interruptible():
            document = comparison.resume(LocalStand(), run_dir, tell)
        return show(document, run_dir)
    profile = plan.load(experiment)
    changes = {"replicates": replicates, "seed": seed}
    profile = profile.model_copy(update={key: value for key, value in changes.items() if value is not None})
    arms = arm_specs(_model(model), given)
    folder = given["artifacts"] / arms[0].model
    made = comparison.plan_of(profile, experiment, arms, folder, full=full, direct=direct)
    run_dir = new_run(given["runs"], comparison.KIND)
    click.echo(
        f"{made.replicates} starts of {len(made.arms)} servers, {about(comparison.seconds(made))}; run: {run_dir}"
    )
    with progress("comparing") as tell, interruptible():
        document = comparison.run(LocalStand(), made, run_dir, tell)
    return show(document, run_dir)


@click.command()
@click.argument("model", required=False)
@lab_options
@click.option("--analyses", type=click.IntRange(min=1), default=20, show_default=True, help="Over all arms.")
@click.option(
    "--experiment", default="aa", show_default=True, help="Load and primary metric: a file or a shipped name."
)
@click.option("--seed", type=int, help="Of orders, payloads and arrivals; default: the experiment's.")
def aa(model: str | None, analyses: int, experiment: str, seed: int | None, **given: Any) -> int:
    """Compare each arm of MODEL with itself, again and again on fresh starts, and count how often a difference is found."""
    from gateway.cli_stand import LocalStand
    from loadtest.lab import aa as work
    from loadtest.lab import plan

    if given["resume"]:
        run_dir = find_run(given["resume"], given["runs"])
        with progress(f"going on with {run_dir.name}") as tell, interruptible():
            document = work.resume(LocalStand(), run_dir, tell)
        return show(document, run_dir)
    profile = plan.load(experiment)
    if seed is not None:
        profile = profile.model_copy(update={"seed": seed})
    arms = arm_specs(_model(model), given)
    made = work.plan_of(profile, experiment, arms, given["artifacts"] / arms[0].model, analyses=analyses)
    run_dir = new_run(given["runs"], work.KIND)
    click.echo(
        f"{analyses} analyses of {profile.replicates} pairs: {made.replicates} starts of {len(made.arms)} servers, "
        f"{about(work.duration(made))}; run: {run_dir}"
    )
    with progress("A/A") as tell, interruptible():
        document = work.run(LocalStand(), made, analyses, run_dir, tell)
    return show(document, run_dir)


def _model(model: str | None) -> str:
    if model is None:
        raise ConfigError(["MODEL: name a model, such as digits, or a run to go on with (--resume RUN)"])
    return model


def arm_specs(model: str, given: dict[str, Any]) -> tuple[ArmSpec, ...]:
    """The arms of the options (see `lab_options`), all with equal resources; raises ConfigError with every problem."""
    from loadtest.lab.spec import BatchRule, Resources

    try:
        cores = tuple(int(part) for part in given["cores"].split(",")) if given.get("cores") else None
    except ValueError:
        raise ConfigError([f"--cores: {given['cores']!r} is no list of cores such as 0,1"]) from None
    resources = Resources(given.get("threads", 1), given.get("workers", 1), cores)
    batch = BatchRule(given.get("max_batch", 1), given.get("max_wait_ms", 0.0))
    problems: list[str] = []
    found = []
    for text in given.get("arms") or DEFAULT_ARMS:
        try:
            found.append(arm_spec(model, text, given["artifacts"], resources, batch))
        except ConfigError as error:
            problems += [f"--arm {text}: {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def arm_spec(model: str, text: str, artifacts: Path, resources: Resources, batch: BatchRule) -> ArmSpec:
    """One arm of NAME=KIND:VARIANT (or NAME=VARIANT, or a variant's name alone); raises ConfigError where it cannot be served."""
    from loadtest.lab.spec import ArmSpec
    from model_store import variants

    name, equals, rest = text.partition("=")
    kind, colon, variant = (rest if equals else name).rpartition(":")
    files = variants.arm_files(artifacts, model, variant)
    if files.skipped is not None:
        raise ConfigError([f"{model}: {variant} {files.skipped}"])
    if colon and kind != files.kind:
        raise ConfigError([f"{variant} is served by {files.kind}, not {kind!r}"])
    problems = variants.problems(artifacts, model, variant)
    if problems:
        raise ConfigError(problems)
    return ArmSpec(name, files.kind, model, variant, files.path.absolute(), resources, batch, digest=files.digest,
                   near=files.near)  # fmt: skip


def new_run(runs: Path, kind: str) -> Path:
    """A new run's directory."""
    from loadtest.lab import document

    return document.new_run(runs, kind)


def find_run(given: str, runs: Path) -> Path:
    """A run's directory by path or id; raises ConfigError."""
    for path in (Path(given), runs / given):
        if (path / "lab.json").is_file():
            return path.absolute()
    raise ConfigError([f"--resume {given}: there is no such run with a lab.json; runs lie in {runs}"])


def about(seconds: float) -> str:
    """A duration in words."""
    return f"about {seconds / 60:.0f} minutes" if seconds >= 90 else f"about {seconds:.0f} seconds"


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, float], None]]:
    """A progress bar on a terminal's stderr, else a line for each step, both with the time left by the time so far.

    The yielded function takes what is done now and the share that is done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console, pace = Console(stderr=True), Pace(time.monotonic())

    def words(what: str, share: float) -> str:
        left = pace.left(share, time.monotonic())
        return what if left is None else f"{what}, {about(left)} left"

    if not console.is_terminal:
        yield lambda what, share: click.echo(f"[{100 * share:3.0f}%] {words(what, share)}", err=True)
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda what, share: bar.update(task, description=f"{title}: {words(what, share)}", completed=share)


@dataclass
class Pace:
    """How fast a share grows. began: on the clock of `left`; first: the share there was then, of a run that goes on."""

    began: float
    first: float | None = None

    def left(self, share: float, now: float) -> float | None:
        """Seconds left if all goes on as it went since the first share was told; None until something has been done."""
        if self.first is None:
            self.first = share
        if share <= self.first:
            return None
        return (1.0 - share) * (now - self.began) / (share - self.first)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP mean what Ctrl-C means."""
    from gateway.cli_stack import interruptible as held

    with held():
        yield


def show(document: dict[str, Any], run_dir: Path) -> int:
    """Print the verdict and every comparison in a table, write the report; returns the verdict's exit code."""
    from rich.console import Console

    from gateway.reports import build_report

    console = Console(width=None if Console().is_terminal else 160)
    if document["comparisons"]:
        console.print(table(document["comparisons"]))
    verdict = document["verdict"]
    console.print(verdict["text"], markup=False)
    for reason in verdict["reasons"]:
        console.print(f"  {reason}", markup=False)
    console.print(f"run: {run_dir}", soft_wrap=True, markup=False)
    if document["blocks"]:
        console.print(f"report: {build_report(run_dir).html.absolute()}", soft_wrap=True, markup=False)
    return int(verdict["code"])


def table(comparisons: Sequence[dict[str, Any]]) -> Any:
    """Metric, load, B against A with its interval, the A/A check, verdict."""
    from rich.markup import escape
    from rich.table import Table

    found = Table("load", "metric", "B / A", "95%", "A/A", "verdict")
    for one in comparisons:
        check = one["aa"]
        aa_text = f"{check['low']:.3g} to {check['high']:.3g}" if "low" in check else "missing"
        where = f"{one['name']}, {one['protocol']}"
        if "missing" in one:
            found.add_row(escape(where), one["metric"], "missing", "", aa_text, escape(one["missing"]))
            continue
        star = " *" if one["primary"] else ""
        interval = f"{one['low']:.3g} to {one['high']:.3g}"
        found.add_row(escape(where), one["metric"] + star, f"{one['value']:.3g}", interval, aa_text, one["verdict"])
    return found
