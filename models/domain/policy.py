"""A policy version: what makes work risky, who approves which level, what running costs."""

from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from models.domain.approval import ApprovalTier
from models.domain.errors import InvalidInput
from models.domain.money import NANO_PER_USD, PPM, NanoUsd
from models.domain.risk import Points, RiskLevel

Words = Annotated[str, StringConstraints(min_length=3, max_length=200, strip_whitespace=True)]
FactorId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
"""A CEL expression over the facts."""
ModelPattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9*][A-Za-z0-9._:/*-]{0,127}$")]
"""A model's name as the provider writes it, with ``*`` for any part."""
Seconds = Annotated[int, Field(ge=1, le=90 * 86_400, strict=True)]

# A thousand dollars: times the longest run it still fits 64 bits, and canonical JSON (2**53) holds it.
Price = Annotated[NanoUsd, Field(ge=0, le=10**12, strict=True)]

MEBIBYTE = 1024 * 1024


class InvalidPolicy(InvalidInput):
    """The text is no policy. `extra["errors"]` lists {where, line, what}, in the order of the text."""

    type, title = "invalid-policy", "Invalid policy"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicyInfo(_Part):
    """What the version is called. The digest, not the name, says which one it really is."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    version: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]{0,31}$")]
    description: Annotated[str, StringConstraints(max_length=1000)] = ""


class FactorRule(_Part):
    """When the condition holds, its points are added to the score."""

    id: FactorId
    when: Expression
    points: Points | Expression
    """0–100, or a CEL expression that gives an integer."""
    words: Words


class FloorRule(_Part):
    """When the condition holds, the level is at least this one, whatever the score."""

    id: FactorId
    when: Expression
    at_least: RiskLevel
    words: Words


class Thresholds(_Part):
    """The lowest score of each level; below `L1` is L0. They rise strictly."""

    L1: Points
    L2: Points
    L3: Points
    L4: Points
    L5: Points

    @model_validator(mode="after")
    def _rise(self) -> Self:
        steps = self.steps()
        for (low, low_at), (high, high_at) in pairwise(steps):
            if low_at >= high_at:
                raise ValueError(f"{high} ({high_at}) must start above {low} ({low_at})")
        return self

    def steps(self) -> tuple[tuple[RiskLevel, int], ...]:
        """The levels above L0 with the score at which each starts, in rising order."""
        levels = [level for level in RiskLevel if level is not RiskLevel.L0]
        return tuple(zip(levels, (self.L1, self.L2, self.L3, self.L4, self.L5), strict=True))


class ApprovalRule(_Part):
    """Who must approve one level, and how long they have."""

    tier: ApprovalTier
    quorum: Annotated[int, Field(ge=1, le=16, strict=True)]
    expires_after: Annotated[int, Field(ge=60, le=90 * 86_400, strict=True)]
    """Seconds from the opening of the approval."""
    remind_after: Annotated[tuple[Annotated[int, Field(ge=60, strict=True)], ...], Field(max_length=8)] = ()
    """Seconds from the opening; rising, and before the expiry."""
    requires_acr: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    """Authentication classes (OIDC `acr`), any one of which is good enough; empty asks for none."""
    reason_required: bool = False

    @model_validator(mode="after")
    def _reminders_come_before_the_end(self) -> Self:
        times = (0, *self.remind_after, self.expires_after)
        if any(early >= late for early, late in pairwise(times)):
            raise ValueError("remind_after must rise and stay below expires_after")
        return self


class Prices(_Part):
    """What running costs."""

    sandbox_second_nano_usd: Price
    """For each begun second of a sandbox's life."""
    minimum_nano_usd: Price
    """The least that a run which started costs."""


class MoneyRules(_Part):
    """How holds behave."""

    max_waiting_hold_share_ppm: Annotated[int, Field(ge=0, le=PPM, strict=True)] = PPM // 2
    """The part of a budget that holds waiting for an approval may take together, in parts per million."""
    awaiting_budget_deadline: Seconds = 7 * 86_400
    """Seconds that an item waits for money before it expires."""


class LlmRules(_Part):
    """What the company lets its assistants spend on models. An assistant's own grant lies within."""

    models: Annotated[tuple[ModelPattern, ...], Field(max_length=200)] = ("*",)
    """Patterns (``*`` for any part of a name); a model that fits none is refused."""
    most_per_item_nano_usd: Annotated[NanoUsd, Field(ge=0, le=10**15, strict=True)] = NanoUsd(10 * NANO_PER_USD)
    """The largest grant for the model calls of one work item."""
    rpm: Annotated[int, Field(ge=1, le=10**6, strict=True)] = 600
    """Calls a minute of one work item."""
    tpm: Annotated[int, Field(ge=1, le=10**12, strict=True)] = 2_000_000
    """Tokens a minute of one work item."""


class WhileWaiting(StrEnum):
    """What becomes of a sandbox whose agent does nothing but wait for people."""

    STAY = "stay"
    """It stays as it is: its time counts and is paid."""
    PAUSE = "pause"
    """It is paused after the grace: its time stands still."""
    SUSPEND = "suspend"
    """It ends after the grace; a new attempt begins with the decision and the state that the agent saved."""


class ActionRules(_Part):
    """What holds for actions that agents ask for in mid-run. Risk, approvals and levels are those of work items."""

    most_per_item: Annotated[int, Field(ge=0, le=10_000, strict=True)] = 50
    """Actions of one work item; more are denied."""
    most_per_minute: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 20
    """Actions of one work item, or of one assistant that runs elsewhere, in a minute."""
    staged_from: RiskLevel | None = None
    """Effects of this level or above are always staged: collected, and approved together at the run's end."""
    denied_for: Seconds = 86_400
    """How long a denial stands for its class of action where the agent runs elsewhere; in a run: to its end."""
    while_waiting: WhileWaiting = WhileWaiting.PAUSE
    grace_seconds: Annotated[int, Field(ge=5, le=86_400, strict=True)] = 60
    """How long an agent waits before it is paused or suspended."""


class DefaultLimits(_Part):
    """The limits of a run that asks for none of its own. Fields and ranges are the sandbox's."""

    memory_bytes: Annotated[int, Field(ge=32 * MEBIBYTE, le=2**40, strict=True)] = 512 * MEBIBYTE
    cpu_nanos: Annotated[int, Field(ge=10**7, le=10**12, strict=True)] = 10**9
    """Billionths of a CPU."""
    pids: Annotated[int, Field(ge=128, le=65_536, strict=True)] = 512
    nproc: Annotated[int, Field(ge=4, le=4096, strict=True)] = 64
    disk_bytes: Annotated[int, Field(ge=MEBIBYTE, le=2**40, strict=True)] = 128 * MEBIBYTE
    tmp_bytes: Annotated[int, Field(ge=MEBIBYTE, le=2**40, strict=True)] = 64 * MEBIBYTE
    output_bytes: Annotated[int, Field(ge=1024, le=2**34, strict=True)] = 64 * MEBIBYTE
    artifact_bytes: Annotated[int, Field(ge=0, le=2**34, strict=True)] = 64 * MEBIBYTE
    wall_seconds: Annotated[int, Field(ge=1, le=30 * 86_400, strict=True)] = 3600
    nofile: Annotated[int, Field(ge=64, le=2**20, strict=True)] = 1024


class ApprovalRules(_Part):
    """Who approves each level that waits. L0 and L1 go on by themselves."""

    L2: ApprovalRule
    L3: ApprovalRule
    L4: ApprovalRule
    L5: ApprovalRule

    @model_validator(mode="after")
    def _the_highest_are_the_holdings(self) -> Self:
        # INVARIANT: L4–L5 are decided by the holding alone; no policy can say otherwise.
        for level, rule in (("L4", self.L4), ("L5", self.L5)):
            if rule.tier is not ApprovalTier.HOLDING:
                raise ValueError(f"{level}.tier must be 'holding': L4 and L5 are the holding's alone")
        return self

    def of(self, level: RiskLevel) -> ApprovalRule | None:
        """The rule of a level; None for L0 and L1."""
        rules = {RiskLevel.L2: self.L2, RiskLevel.L3: self.L3, RiskLevel.L4: self.L4, RiskLevel.L5: self.L5}
        return rules.get(level)


class Policy(_Part):
    """One whole, valid policy version. `models.rules.policy.load` makes it and checks the CEL."""

    policy: PolicyInfo
    levels: Thresholds
    factors: Annotated[tuple[FactorRule, ...], Field(max_length=200)]
    floors: Annotated[tuple[FloorRule, ...], Field(max_length=100)] = ()
    approvals: ApprovalRules
    prices: Prices
    money: MoneyRules = MoneyRules()
    limits: DefaultLimits = DefaultLimits()
    llm: LlmRules = LlmRules()
    actions: ActionRules = ActionRules()

    @model_validator(mode="after")
    def _ids_are_told_apart(self) -> Self:
        seen: set[str] = set()
        for rule in (*self.factors, *self.floors):
            if rule.id in seen:
                raise ValueError(f"the id {rule.id!r} is used twice among factors and floors")
            seen.add(rule.id)
        return self
