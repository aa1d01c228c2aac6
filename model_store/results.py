"""What a verification found, in values.

Here live the results that `parity` makes, `manifest` writes and a command prints; nothing here runs or decides.
"""

from dataclasses import dataclass
from pathlib import Path

from model_store.compare import OutputDifference, Tolerance
from model_store.record import Artifact

ENOUGH_INPUTS = 1000


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """One artefact's answers beside the reference.

    accuracy: share of the test rows whose largest output is the label, None without labels; problem: why it could not be run.
    """

    artifact: Artifact
    differences: tuple[OutputDifference, ...]
    versions: dict[str, str]
    accuracy: float | None
    seconds: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Ran, and every output is within the tolerance."""
        return not self.problem and all(difference.ok for difference in self.differences)


@dataclass(frozen=True, slots=True)
class ParityResult:
    """One model's parity: the artefacts beside the reference, and beside each other; `failures` is empty when ok."""

    model: str
    rows: int
    reference: str
    tolerance: Tolerance
    artifacts: tuple[ArtifactResult, ...]
    between: tuple[OutputDifference, ...]
    failures: tuple[str, ...]
    manifest: Path

    @property
    def ok(self) -> bool:
        """Whether every artefact is the same model."""
        return not self.failures

    @property
    def warnings(self) -> tuple[str, ...]:
        """What weakens the proof without breaking it."""
        if self.rows >= ENOUGH_INPUTS:
            return ()
        return (
            f"{self.model}: proved on {self.rows} inputs only; {ENOUGH_INPUTS} are what a comparison should stand on",
        )
