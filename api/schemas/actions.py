"""Actions, questions and keys, as the API speaks of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field, ValidationError

from api.schemas.fields import Answer, Body, MoneyText, invalid_body, nano
from models.domain.action import MAX_REASON, MAX_TARGET, ActionMode, ActionRequest
from models.domain.action_views import ActionAnswer, ActionView
from models.domain.work_item import ActionKind, DataClass, ExternalEffect, Reversibility
from models.services import questions
from models.services.questions import NewQuestion, QuestionView
from models.tables.actions import AssistantKeyRow

KeyInBody = Annotated[
    str | None, Field(max_length=200, description="Instead of the header Idempotency-Key, for clients that set none.")
]


class ActionBody(Body):
    """An action that is asked for. A fact that is left out takes its cautious value."""

    kind: ActionKind = Field(examples=["send_message"])
    target: str = Field(min_length=1, max_length=MAX_TARGET, description="What it is done to, for people.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="What is meant; shown to who decides.")
    effect: dict[str, Any] | None = Field(
        None,
        description="What AWGP is to do through a connector; its name as `connector`, and by its kind: http (method,"
        " path or url, query, headers, json or body_b64), n8n (path, json), file (artifact).",
    )
    reason: str = Field("", max_length=MAX_REASON, description="Why, for who decides.")
    mode: ActionMode = Field(ActionMode.WAIT, description="`staged` collects the effect for the run's end.")
    data_class: DataClass | None = None
    reversibility: Reversibility | None = None
    external_effect: ExternalEffect | None = None
    amount: MoneyText | None = Field(None, description="What it moves; never less than the work item's.")
    idempotency_key: KeyInBody = None

    def to_domain(self) -> ActionRequest:
        """What the service takes."""
        given = self.model_dump(exclude={"amount", "idempotency_key"})
        try:
            return ActionRequest(**given, amount_nano_usd=nano(self.amount) if self.amount is not None else None)
        except ValidationError as error:
            raise invalid_body(error) from error


class ActionList(Answer):
    """The actions of a work item, in the order in which they were asked for."""

    items: list[ActionView]


class OwnActions(Answer):
    """The actions of the agent's own run."""

    items: list[ActionAnswer]


class ActionPage(Answer):
    """Actions, newest first."""

    items: list[ActionView]
    next_cursor: str | None


class QuestionBody(Body):
    """A question to whoever asked for the work."""

    words: str = Field(min_length=1, max_length=4000)
    options: tuple[questions.Option, ...] = Field((), max_length=20, description="Of which one is the answer.")
    idempotency_key: KeyInBody = None

    def to_domain(self) -> NewQuestion:
        """What the service takes."""
        try:
            return NewQuestion(words=self.words, options=self.options)
        except ValidationError as error:
            raise invalid_body(error) from error


class QuestionList(Answer):
    """The questions of a work item, in the order in which they were asked."""

    items: list[QuestionView]


class AnswerBody(Body):
    """An answer to an agent's question."""

    answer: questions.Answer


class NewKeyBody(Body):
    """How long a key holds."""

    expires_in_days: int | None = Field(90, ge=1, le=3650, description="null: until it is revoked.")


class KeyAnswer(Answer):
    """An assistant's key, without what it is shown as."""

    id: UUID
    assistant_id: UUID
    prefix: str
    created_by: UUID
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: AssistantKeyRow) -> Self:
        """The answer for a row."""
        return cls.model_validate(row, from_attributes=True)


class NewKeyAnswer(KeyAnswer):
    """A key just made."""

    key: str = Field(description="Shown this once.")


class KeyList(Answer):
    """An assistant's keys, newest first."""

    items: list[KeyAnswer]


class StateAnswer(Answer):
    """What was saved."""

    sha256: str
    size: int
