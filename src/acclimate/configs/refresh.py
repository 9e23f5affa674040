"""Settings of `refresh`: learning from feedback, and what has to be shown before it is used."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_above, check_at_least, check_fraction
from acclimate.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshConfig:
    """Learning from feedback."""

    refresh_steps: int = 60
    """Most steps of a refresh's training."""
    refresh_rate: float = 0.25
    """Peak learning rate of a refresh, as a share of that which a training of the run would have."""
    feedback_uses: int = 4
    """How often a row of feedback is used in a refresh, at most."""
    user_share: float = 0.05
    """Most of a step's rows that one user may have a part in. Marks without a user are one user's."""
    later_fraction: float = 0.3
    """Share of the marked queries, the latest ones, that no training sees and that the candidate is judged by."""
    least_later: int = 50
    """Fewest later queries that a candidate is judged by."""
    least_users: int = 5
    """Fewest users whose later queries judge; of these no user has more than one in this number."""
    gate_fraction: float = 0.5
    """Share of the dev queries on which a candidate has to be as good; it is neither trained on nor chosen by them."""
    gate_margin: float = 0.01
    """How much NDCG@10 a candidate may lose there, to the low end of the interval."""

    def __post_init__(self) -> None:
        for name in ("refresh_steps", "feedback_uses", "least_later"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("least_users", self.least_users, 2)
        for name in ("refresh_rate", "user_share", "later_fraction", "gate_fraction"):
            check_above(name, getattr(self, name), 0.0)
        for name in ("later_fraction", "gate_fraction", "gate_margin"):
            check_fraction(name, getattr(self, name))
        if self.user_share > 0.5:
            raise UsageError(
                f"user_share = {self.user_share}", possible="up to 0.5: half of a step are the run's own rows"
            )
