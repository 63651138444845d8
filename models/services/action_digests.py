"""Digests of actions: of exactly what would be done, of its class, and of the request."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Any
from uuid import UUID

import rfc8785

from models.domain.action import ActionMode, ActionRequest
from models.tables.actions import ActionRow


def action_digest(
    *,
    tenant_id: UUID,
    assistant_id: UUID,
    work_item_id: UUID | None,
    run_id: UUID | None,
    kind: str,
    target: str,
    parameters: dict[str, Any],
    effect: dict[str, Any] | None,
) -> str:
    """Hex SHA-256 over the RFC 8785 form of exactly what would be done.

    The stored effect names the connector's version, so what was approved of one version is not done by another.
    """
    return _digest(
        {
            "tenant": str(tenant_id),
            "assistant": str(assistant_id),
            "work_item": str(work_item_id) if work_item_id else None,
            "run": str(run_id) if run_id else None,
            "kind": kind,
            "target": target,
            "parameters": parameters,
            "effect": effect,
        }
    )


def digest_of(row: ActionRow) -> str:
    """The digest of what the row says now; it must be the row's own."""
    return action_digest(
        tenant_id=row.tenant_id,
        assistant_id=row.assistant_id,
        work_item_id=row.work_item_id,
        run_id=row.run_id,
        kind=row.kind,
        target=row.target,
        parameters=row.parameters,
        effect=row.effect,
    )


def class_digest(kind: str, target: str, connector: str, method: str) -> str:
    """What a denial is remembered by: the same thing asked for with other parameters is of the same class.

    A target that people read as the same is the same, however it is spelled: in another case, spacing or form.
    """
    seen = (letter for letter in unicodedata.normalize("NFKC", target) if unicodedata.category(letter) != "Cf")
    spelled = " ".join("".join(seen).casefold().split())
    return _digest({"kind": kind, "target": spelled, "connector": connector, "method": method})


def request_digest(asked: ActionRequest) -> str:
    """Digest of what was asked, the same for the same request; whether the agent waits is not what it asks for."""
    body = asked.model_dump(mode="json", exclude={"mode"})
    staged = asked.mode is ActionMode.STAGED
    return _digest(body | {"amount_nano_usd": str(asked.amount_nano_usd), "staged": staged})


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(rfc8785.dumps(document)).hexdigest()
