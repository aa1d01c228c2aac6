"""The proof that a model's variants are the same model, each by its own tolerance.

Here lives what is run and what is kept of it in the variants' manifest; running lives in `runners`, judging in `parity`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError
from gateway.protocol import signature_file
from model_store import manifest, parity, record, variants
from model_store.layout import Layout, combined, digests
from model_store.process import Progress, silent
from model_store.results import ArtifactResult
from model_store.runners import Runner


@dataclass(frozen=True, slots=True)
class VariantParity:
    """One variant's proof; skipped says why the model does not have it, failures is empty when it is equal."""

    model: str
    variant: str
    rows: int
    result: ArtifactResult | None
    failures: tuple[str, ...]
    skipped: str | None

    @property
    def ok(self) -> bool:
        """Equal within its tolerance, or not there."""
        return not self.failures


def verify(
    names: Sequence[str],
    root: Path,
    progress: Progress = silent,
    only: Sequence[str] | None = None,
    *,
    unproved: bool = False,
) -> list[VariantParity]:
    """Prove every built variant (or `only` those) of the named models and write it into their variants' manifests.

    unproved: leave those alone whose proof is there and good. Raises ConfigError when a model has no variants built or their
    files changed since.
    """
    root = root.absolute()
    found = []
    for name in dict.fromkeys(names):
        base = Layout(root, name)
        entries = variants.read_manifest(base)
        if not entries:
            raise ConfigError([f"{name}: no variants are built; `abgate models build {name} --variants` makes them"])
        for variant, entry in entries.items():
            proved = entry["parity"] is not None and entry["parity"]["ok"]
            if (only is None or variant in only) and not (unproved and proved):
                found.append(_verify_one(base, variant, entry, progress))
    return found


def _verify_one(base: Layout, name: str, entry: dict[str, Any], progress: Progress) -> VariantParity:
    if entry["skipped"]:
        return VariantParity(base.model, name, 0, None, (), entry["skipped"])
    home = Layout(variants.home(base), name)
    made = record.load(home.build_record)
    if combined(digests(home.folder, home.folder)) != entry["digest"]:
        raise ConfigError([f"{home.folder}: its files changed; run `abgate models build {base.model} --variants`"])
    signature = signature_file.load(base.signature)
    evaluation = parity.evaluation_of(base, signature)
    rows = len(evaluation[signature.inputs[0].name])
    tell: Progress = lambda _, step, share: progress(base.model, f"{name}: {step}", min(share, 0.999))  # noqa: E731
    runner = Runner(home, signature, evaluation, tell, served_signature=base.signature)
    answers = parity.attempt(runner, made.artifacts[0])
    right = parity.reference(base, signature, evaluation, ())
    result = parity.judge(made.artifacts[0], answers, right, evaluation, made.tolerance)
    failures = tuple(parity.failures_of(f"{base.model}: variant {name}", [result], made.tolerance, rows))
    proof = {
        "ok": not failures,
        "failures": list(failures),
        "rows": rows,
        "reference": made.reference,
        "verified_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **manifest.figures(result),
    }
    variants.write_entry(base, name, entry | {"parity": proof})
    progress(base.model, f"{name}: {'equal' if not failures else 'NOT equal'}", 1.0)
    return VariantParity(base.model, name, rows, result, failures, None)
