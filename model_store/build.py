"""Builds the models: only what changed, each framework in its own process, and all of a model or nothing of it.

Here live the decision which steps of a model must run and the exchange of the finished folder; the steps live in `stages`.
Nothing here imports a framework, so that a build with nothing to do costs a few digests.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.errors import ConfigError
from model_store import record, stages, zoo
from model_store.layout import VARIANTS, Layout, files_below, own_digests
from model_store.process import Progress, silent
from model_store.record import BuildRecord, Stage


@dataclass(frozen=True, slots=True)
class BuildResult:
    """One model's build: where it lies, which steps ran (none: it was up to date), and how long it took."""

    model: str
    folder: Path
    steps_run: tuple[str, ...]
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether anything was built."""
        return bool(self.steps_run)


def build(names: Sequence[str] | None, root: Path, handler: Path, progress: Progress = silent) -> list[BuildResult]:
    """Build the named models (zoo.NAMES when None or empty) below `root`; `handler` is TorchServe's handler file, copied in.

    A model whose sources, versions and files are unchanged is left alone. Raises ConfigError on an unknown name or a missing
    handler or package, ProcessError when a framework process fails: models finished before that stay.
    """
    chosen = list(dict.fromkeys(names or zoo.NAMES))
    problems = [
        f"models: {name!r} is not a model of this repository; it has {', '.join(zoo.ALL_NAMES)}"
        for name in chosen
        if name not in zoo.ALL_NAMES
    ]
    if not handler.is_file():
        problems.append(f"{handler}: there is no such file; the TorchServe handler is needed for every model")
    if problems:
        raise ConfigError(problems)
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    with locked(root, lambda: progress(chosen[0], "waiting for another build to end", 0.0)):
        return [_build_one(name, root, handler, progress) for name in chosen]


@contextmanager
def locked(root: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the artefact root for oneself: a second build waits for the first, says so, and then finds its work done."""
    with (root / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_one(name: str, root: Path, handler: Path, progress: Progress) -> BuildResult:
    started = time.perf_counter()
    layout = Layout(root, name)
    plan = stages.steps(name, handler)
    progress(name, "checking what is there", 0.0)
    valid = still_valid(layout, plan, {})
    if len(valid) == len(plan):
        progress(name, "up to date", 1.0)
        return BuildResult(name, layout.folder, (), time.perf_counter() - started)
    work = root / f".building-{name}"
    shutil.rmtree(work, ignore_errors=True)
    fresh = Layout(work, name)
    fresh.folder.mkdir(parents=True)
    try:
        finished, steps_run = run_steps((layout, fresh), plan, valid, {}, stages.Context(fresh, handler, progress))
        tolerance = zoo.model(name).TOLERANCE
        made = BuildRecord(name, stages.artifacts(name), tolerance, stages.reference(name), finished)
        record.save(fresh.build_record, made)
        _keep_variants(layout, fresh)
        install(fresh, layout)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    progress(name, "built", 1.0)
    return BuildResult(name, layout.folder, steps_run, time.perf_counter() - started)


def _keep_variants(old: Layout, fresh: Layout) -> None:
    """The variants stay beside a model that is built again; their own keys tell which of them still fit it."""
    for path in files_below(old.folder / VARIANTS, records=True):
        _link(path, fresh.folder / path.relative_to(old.folder))


def still_valid(layout: Layout, plan: Sequence[stages.Step], given: Mapping[str, str]) -> dict[str, Stage]:
    """The steps, from the first on, whose key and files are as recorded; `given`: digests of what they read from elsewhere."""
    try:
        finished = record.load(layout.build_record).stages
    except ConfigError:
        return {}
    actual = own_digests(layout)
    valid: dict[str, Stage] = {}
    made = dict(given)
    for step in plan:
        stage = finished.get(step.name)
        if stage is None or stage.key != stages.key(step, made):
            break
        if any(actual.get(path) != digest for path, digest in stage.files.items()):
            break
        valid[step.name] = stage
        made.update(stage.files)
    return valid


def run_steps(
    layouts: tuple[Layout, Layout],
    plan: Sequence[stages.Step],
    valid: Mapping[str, Stage],
    given: Mapping[str, str],
    context: stages.Context,
) -> tuple[dict[str, Stage], tuple[str, ...]]:
    """Fill the fresh folder (layouts: old, fresh): steps still valid from the old one, the others by running them.

    Gives what build.json keeps of the steps, and the names of those that ran.
    """
    old, fresh = layouts
    made = dict(given)
    finished: dict[str, Stage] = {}
    steps_run: list[str] = []
    for step in plan:
        if step.name in valid:
            stage = valid[step.name]
            for path in stage.files:
                _link(old.folder / path, fresh.folder / path)
        else:
            before = stages.key(step, made)
            step.run(replace(context, progress=stages.scaled(context.progress, step)))
            steps_run.append(step.name)
            sums = own_digests(fresh)
            files = {path: digest for path, digest in sums.items() if path not in made}
            stage = Stage(before, files, stages.versions(step))
        made.update(stage.files)
        finished[step.name] = stage
    return finished, tuple(steps_run)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name: finished artefacts are replaced, never written into."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def install(fresh: Layout, layout: Layout) -> None:
    """Put the finished folder in place of the old one, by renames on one file system."""
    aside = fresh.root / f".old-{layout.model}"
    if layout.folder.exists():
        os.rename(layout.folder, aside)
    os.rename(fresh.folder, layout.folder)
