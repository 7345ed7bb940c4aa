"""The budget of an artefact: the drift that is allowed."""

from dataclasses import dataclass

DEFAULT_DRIFT_DB = 0.05
"""PSNR-Y that may be lost on average where the user states no budget."""


@dataclass(frozen=True, slots=True)
class DriftBudget:
    """PSNR-Y that may be lost, in dB.

    Attributes:
        mean_db: On average over the pictures.
        worst_db: On any one of them; None sets no limit.
    """

    mean_db: float
    worst_db: float | None = None

    def allows(self, mean_db: float, worst_db: float) -> bool:
        """True where the drift (negative: lost) of mean and worst picture is within the budget."""
        # Written so that NaN is refused.
        return mean_db >= -self.mean_db and self.allows_worst(worst_db)

    def allows_worst(self, worst_db: float) -> bool:
        """True where the drift of the worst picture is within the budget."""
        return self.worst_db is None or worst_db >= -self.worst_db

    def share(self, share: float) -> "DriftBudget":
        """A part of it."""
        worst_db = None if self.worst_db is None else share * self.worst_db
        return DriftBudget(share * self.mean_db, worst_db)

    def __str__(self) -> str:
        """In words, with units."""
        worst = "" if self.worst_db is None else f", {self.worst_db} dB on any one picture"
        return f"{self.mean_db} dB{worst}"
