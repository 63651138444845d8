"""An action: a thing with an effect that an assistant asks leave for; how it is performed, and what became of it."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from models.domain.money import Amount
from models.domain.work_item import ActionKind, DataClass, ExternalEffect, Reversibility, Slug

MAX_TARGET = 512
MAX_REASON = 2000


class ActionStatus(StrEnum):
    """Where an action is in its life."""

    PERMITTED = "permitted"
    """Allowed. Without an effect of ours that is its end: the agent goes on; with one it is about to be performed."""
    PENDING = "pending"
    """People are asked."""
    DENIED = "denied"
    EDITED = "edited"
    """Allowed, but otherwise than it was asked for: by the parameters and the effect that the approver wrote."""
    STAGED = "staged"
    """Collected; approved with the others at the run's end."""
    PERFORMING = "performing"
    PERFORMED = "performed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It cannot be known whether the other side has done it."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    DISCARDED = "discarded"
    """Staged, and never to be performed."""

    @property
    def is_allowed(self) -> bool:
        """Whether it was allowed and its effect, if it has one, is not performed yet."""
        return self in (ActionStatus.PERMITTED, ActionStatus.EDITED)


class ActionMode(StrEnum):
    """What the agent does meanwhile."""

    WAIT = "wait"
    """It waits for the answer."""
    ASYNC = "async"
    """It goes on with other work and asks later."""
    STAGED = "staged"
    """It goes on; the effect is collected and approved with the others at the end."""


class ConnectorKind(StrEnum):
    """By what an effect is performed, outside of the sandbox."""

    HTTP = "http"
    N8N = "n8n"
    FILE = "file"


HTTP_READS = frozenset({"GET", "HEAD"})
"""Methods that change nothing at the other side (RFC 9110, 9.2.1)."""

HttpMethod = Annotated[str, StringConstraints(pattern="^(GET|HEAD|POST|PUT|PATCH|DELETE)$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")]


def again_digest(digest: str, warrant_id: UUID) -> str:
    """What is asked of people when nobody knows whether an action was done: may this very try be followed by another.

    Another digest than the action's, so that a yes to the one is never a yes to the other.
    """
    return hashlib.sha256(f"again:{digest}:{warrant_id}".encode()).hexdigest()


def _one_line(text: str) -> str:
    """A header's value that cannot begin another header (RFC 9110, 5.5)."""
    if any((ord(letter) < 32 and letter != "\t") or ord(letter) == 127 for letter in text):
        raise ValueError("holds a control character")
    return text


HeaderValue = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_one_line)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Effect(_Value):
    connector: Slug
    """Name of a connector of the company that the assistant may use."""


class HttpEffect(_Effect):
    """One HTTP request. The connector adds the credential, and says which hosts may be reached."""

    method: HttpMethod = "POST"
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_one_line)] | None = None
    """Below the connector's base URL."""
    url: Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_one_line)] | None = None
    """Whole; on a host that the connector allows."""
    query: Annotated[dict[str, str], Field(max_length=64)] = {}
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=64)] = {}
    json_body: Annotated[Any, Field(alias="json")] = None
    body_b64: Annotated[str, StringConstraints(max_length=262_144, pattern=r"^[A-Za-z0-9+/]*={0,2}$")] | None = None

    @model_validator(mode="after")
    def _one_address_one_body(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("takes either path or url")
        if self.json_body is not None and self.body_b64 is not None:
            raise ValueError("takes json or body_b64, not both")
        return self


class N8nEffect(_Effect):
    """One call of an n8n webhook."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_one_line)]
    json_body: Annotated[Any, Field(alias="json")] = None


class FileEffect(_Effect):
    """One artifact of the run, handed to the requester."""

    artifact: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """Path of the artifact, as the agent named it."""


Effect = HttpEffect | N8nEffect | FileEffect
EFFECTS: dict[ConnectorKind, type[HttpEffect] | type[N8nEffect] | type[FileEffect]] = {
    ConnectorKind.HTTP: HttpEffect,
    ConnectorKind.N8N: N8nEffect,
    ConnectorKind.FILE: FileEffect,
}


class ActionRequest(_Value):
    """What an agent asks leave for.

    Attributes:
        kind: What it does; a kind that the policy does not know scores higher.
        target: What it is done to, for people: an account, an address, a file.
        parameters: What the agent means to do, in its own words; shown to who decides, and part of the digest.
        effect: What AWGP is to do for it through a connector; None: the agent asks for leave alone.
        reason: Why, for who decides.
        data_class: A fact left out takes its cautious value.
        amount_nano_usd: The sum that it moves; left out: the work item's.
    """

    kind: ActionKind
    target: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TARGET, strip_whitespace=True)]
    parameters: dict[str, Any] = {}
    effect: dict[str, Any] | None = None
    reason: Annotated[str, StringConstraints(max_length=MAX_REASON, strip_whitespace=True)] = ""
    mode: ActionMode = ActionMode.WAIT
    data_class: DataClass | None = None
    reversibility: Reversibility | None = None
    external_effect: ExternalEffect | None = None
    amount_nano_usd: Amount | None = None


class ActionEdits(_Value):
    """What an approver changes before saying yes; a part left out stays."""

    parameters: dict[str, Any] | None = None
    effect: dict[str, Any] | None = None


class AgentCaller(_Value):
    """An agent whose credential holds: a run's warrant, or an assistant's key (no run).

    Attributes:
        attempt: The run's attempt that the warrant is for.
        warrant_id: The warrant; the run's row must name it.
        key_id: The assistant's key.
    """

    tenant_id: UUID
    assistant_id: UUID
    work_item_id: UUID | None = None
    run_id: UUID | None = None
    attempt: int | None = None
    warrant_id: UUID | None = None
    key_id: UUID | None = None

    @property
    def is_run(self) -> bool:
        """Whether it runs inside the fence."""
        return self.run_id is not None
