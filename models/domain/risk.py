"""The answer of the risk rules: a score, a level, and the factors that made them."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_SCORE = 100

Points = Annotated[int, Field(ge=0, le=MAX_SCORE, strict=True)]


class RiskLevel(StrEnum):
    """How much oversight the work needs: L0 none at all, L5 the holding's fullest. Ordered."""

    L0 = "L0"
    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"
    L5 = "L5"

    @property
    def rank(self) -> int:
        """0 for L0 … 5 for L5."""
        return int(self.value[1])

    @property
    def needs_approval(self) -> bool:
        """L0–L1 go on by themselves; L2–L5 wait for humans."""
        return self.rank >= 2

    @property
    def holding_only(self) -> bool:
        """INVARIANT: L4–L5 are decided by the holding alone, on every path."""
        return self.rank >= 4

    # Python compares the str bases by default, which happens to be right for one digit; being
    # explicit refuses a comparison with a bare string that is no level ("L10", "high").
    def __lt__(self, other: str) -> bool:
        return self.rank < RiskLevel(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= RiskLevel(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > RiskLevel(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= RiskLevel(other).rank


class RiskFactor(BaseModel):
    """One reason for the score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    points: Points
    words: str
    """Plain English for the approver."""
    at_least: RiskLevel | None = None
    """Set for a floor: whatever the score, the level is not below this one."""


class RiskAssessment(BaseModel):
    """What the policy says of the facts. Equal facts and policy give an equal assessment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: Points
    level: RiskLevel
    factors: tuple[RiskFactor, ...]
    """In the order of the policy, floors last; only those that apply."""
    policy_version: str
    policy_digest: str
