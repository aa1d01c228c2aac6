"""The proof that a model's artefacts are the same model: the same inputs through each, each in its own process.

Here lives the decision what is compared with what, and what counts as failed; running lives in `runners`, arithmetic in
`compare`, the file in `manifest`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.errors import AbgateError, ConfigError
from gateway.protocol import signature_file
from gateway.protocol.signature_file import Signature
from model_store import arrays, inputs, manifest, record
from model_store.compare import OutputDifference, Tolerance, compare
from model_store.layout import Layout
from model_store.process import Progress, silent
from model_store.record import Artifact, BuildRecord
from model_store.results import ArtifactResult, ParityResult
from model_store.runners import Answers, Runner, StartTorchServe


def verify(
    names: Sequence[str] | None,
    root: Path,
    progress: Progress = silent,
    torchserve: StartTorchServe | None = None,
) -> list[ParityResult]:
    """Prove the named models (every model found below `root` when None) and write their manifests.

    `torchserve` starts a TorchServe for a folder that brings its own handler (see runners). Raises ConfigError when a model is
    not built or its inputs do not fit its signature; a model that fails its parity is a result with ok False.
    """
    root = root.absolute()
    chosen = list(dict.fromkeys(names or built(root)))
    if not chosen:
        raise ConfigError([f"{root}: there is no model; build with `abgate models build`"])
    missing = [name for name in chosen if not Layout(root, name).build_record.is_file()]
    if missing:
        raise ConfigError(
            [
                f"{root}: {name!r} is not there; `abgate models build` or `abgate models add` makes it"
                for name in missing
            ]
        )
    return [verify_one(Layout(root, name), progress, torchserve) for name in chosen]


def built(root: Path) -> list[str]:
    """The names of the models below an artefact root."""
    return sorted(path.parent.name for path in root.glob("*/build.json") if not path.parent.name.startswith("."))


def verify_one(layout: Layout, progress: Progress, torchserve: StartTorchServe | None) -> ParityResult:
    """Prove one model and write its manifest."""
    made = record.load(layout.build_record)
    signature = signature_file.load(layout.signature)
    evaluation = evaluation_of(layout, signature)
    rows = len(evaluation[signature.inputs[0].name])
    runner = Runner(layout, signature, evaluation, progress, torchserve)
    # two artefacts at a time, each in its own process: they wait for their own framework's import
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda artifact: attempt(runner, artifact), made.artifacts))
    right = reference(layout, signature, evaluation, answers)
    artifacts = tuple(
        judge(artifact, answer, right, evaluation, made.tolerance)
        for artifact, answer in zip(made.artifacts, answers, strict=True)
    )
    between = _between(answers, made.tolerance)
    result = ParityResult(
        layout.model,
        rows,
        made.reference,
        made.tolerance,
        artifacts,
        between,
        tuple(_failures(layout.model, made, artifacts, between, rows)),
        layout.manifest,
    )
    manifest.write(layout, result)
    progress(layout.model, "equal" if result.ok else "NOT equal", 1.0)
    return result


def evaluation_of(layout: Layout, signature: Signature) -> dict[str, NDArray[Any]]:
    try:
        evaluation = arrays.load(layout.inputs)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{layout.inputs}: cannot be read: {error}"]) from error
    inputs.check(evaluation, signature, str(layout.inputs))
    return evaluation


def attempt(runner: Runner, artifact: Artifact) -> Answers | str:
    """What an artefact answers, or in words why it could not be run."""
    try:
        return runner.run(artifact)
    except ConfigError:
        raise
    except AbgateError as error:
        return str(error)


def reference(
    layout: Layout, signature: Signature, evaluation: Mapping[str, NDArray[Any]], answers: Sequence[Answers | str]
) -> Mapping[str, NDArray[Any]] | None:
    """Whose answers are right: those kept with the inputs, else the first artefact's that could be run."""
    kept = {
        spec.name: evaluation[inputs.OUT + spec.name]
        for spec in signature.outputs
        if inputs.OUT + spec.name in evaluation
    }
    if len(kept) == len(signature.outputs):
        return kept
    if layout.reference.is_file():
        return arrays.load(layout.reference)
    first = answers[0] if answers else ""
    return None if isinstance(first, str) else first.outputs


def judge(
    artifact: Artifact,
    answers: Answers | str,
    right: Mapping[str, NDArray[Any]] | None,
    evaluation: Mapping[str, NDArray[Any]],
    tolerance: Tolerance,
) -> ArtifactResult:
    """An artefact's answers beside the right ones."""
    if isinstance(answers, str):
        return ArtifactResult(artifact, (), {}, None, 0.0, answers)
    if right is None:
        return ArtifactResult(artifact, (), answers.versions, None, answers.seconds, "has nothing to be compared with")
    differences = compare(answers.outputs, right, tolerance)
    accuracy = _accuracy(answers.outputs, evaluation)
    return ArtifactResult(artifact, differences, answers.versions, accuracy, answers.seconds)


def _accuracy(outputs: Mapping[str, NDArray[Any]], evaluation: Mapping[str, NDArray[Any]]) -> float | None:
    if "label" not in evaluation or len(outputs) != 1:
        return None
    split = evaluation.get("split")
    test = np.ones(len(evaluation["label"]), bool) if split is None else split == 1
    guess = next(iter(outputs.values())).argmax(axis=-1)
    return float(np.mean(guess[test] == evaluation["label"][test]))


def _between(answers: Sequence[Answers | str], tolerance: Tolerance) -> tuple[OutputDifference, ...]:
    """The second artefact beside the first, which is what an A/B comparison compares."""
    if len(answers) != 2 or isinstance(answers[0], str) or isinstance(answers[1], str):
        return ()
    return compare(answers[1].outputs, answers[0].outputs, tolerance)


def _failures(
    model: str,
    made: BuildRecord,
    artifacts: Sequence[ArtifactResult],
    between: Sequence[OutputDifference],
    rows: int,
) -> list[str]:
    failures = [
        text
        for item in artifacts
        for text in failures_of(f"{model}: {item.artifact.name}", [item], made.tolerance, rows)
    ]
    if not failures and len(made.artifacts) == 2:
        pair = f"{model}: {made.artifacts[1].name} beside {made.artifacts[0].name}"
        failures = [describe(pair, difference, made.tolerance, rows) for difference in between if not difference.ok]
    return failures


def failures_of(what: str, items: Sequence[ArtifactResult], tolerance: Tolerance, rows: int) -> list[str]:
    """What is wrong with artefacts, each thing in a sentence that begins with `what`."""
    failures = [f"{what}: {item.problem}" for item in items if item.problem]
    different = [difference for item in items for difference in item.differences if not difference.ok]
    return failures + [describe(what, difference, tolerance, rows) for difference in different]


def describe(what: str, difference: OutputDifference, tolerance: Tolerance, rows: int) -> str:
    """One failed output in a sentence: which output, at which input and index, both values, how far, and what is allowed."""
    if difference.problem or difference.worst is None:
        return f"{what}: output {difference.output!r} {difference.problem}"
    worst = difference.worst
    index = "".join(f"[{i}]" for i in worst.index)
    far = "" if difference.max_abs_diff is None else f", {difference.max_abs_diff:.3g} apart"
    return (
        f"{what}: output {difference.output!r} of input {worst.row}{' at ' + index if index else ''} is {worst.got} where "
        f"{worst.want} is right{far}; allowed is {tolerance}; "
        f"{difference.rows_outside} of {rows} inputs are outside"
    )
