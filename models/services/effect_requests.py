"""The request that an effect is: exactly the bytes that were approved, and beside them the connector's own headers."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import rfc8785

from models.domain.action import HTTP_READS, HttpEffect, N8nEffect
from models.domain.connector import Credential, HttpConnector, N8nConnector
from models.domain.errors import WarrantRefused
from models.rules import outbound
from models.rules.event_data import HIDDEN, Redactor
from models.rules.outbound import Target

KEPT_BODY_BYTES = 16 * 1024


@dataclass(frozen=True)
class Request:
    """One HTTP request, whole.

    Attributes:
        headers: All but the credential.
        credential: Headers that go to the target's own origin alone.
        hiding: Hides the company's secrets in whatever is kept.
    """

    method: str
    target: Target
    headers: dict[str, str]
    body: bytes | None = field(repr=False)
    hiding: Redactor
    credential: dict[str, str] = field(repr=False)

    def record(self) -> dict[str, Any]:
        """What is kept of it, without secrets."""
        headers = {name: self.hiding.hide(value) for name, value in self.headers.items()}
        return {
            "method": self.method,
            "url": self.hiding.hide(self.target.url),
            "headers": headers | dict.fromkeys(self.credential, HIDDEN),
            **kept_body(self.body or b"", self.hiding),
        }


def build(
    config: HttpConnector | N8nConnector, effect: HttpEffect | N8nEffect, action_id: UUID, secrets: dict[str, str]
) -> Request:
    """The request of an effect; the connector's configuration is looked at again.

    Args:
        config: Of the connector, in the version that the action's digest names.
        effect: As it was approved.
        action_id: The idempotency key, where the other side takes one.
        secrets: All of the company's: one may be shown, all are hidden in what is kept.

    Raises:
        WarrantRefused: The connector does not do this, or its secret is gone.
    """
    try:
        target = outbound.target_of(config, path=effect.path, url=getattr(effect, "url", None))
        if isinstance(effect, HttpEffect) and effect.query:
            more = urlencode(effect.query, quote_via=quote)
            target = Target(
                target.scheme, target.host, target.port, target.path, "&".join(filter(None, (target.query, more)))
            )
    except outbound.NotAllowedError as error:
        raise WarrantRefused(str(error), code="connector") from error
    headers, body = _content(effect)
    if config.idempotency_header is not None:
        headers[config.idempotency_header] = str(action_id)
    return Request(
        method=effect.method if isinstance(effect, HttpEffect) else "POST",
        target=target,
        headers=headers,
        body=body,
        hiding=Redactor(frozenset(secrets.values()) | {part for one in secrets.values() for part in _parts(one)}),
        credential=_shown(config.credential, secrets),
    )


def repeatable(config: HttpConnector | N8nConnector, effect: HttpEffect | N8nEffect) -> bool:
    """Whether doing it twice is doing it once: the other side takes a key, or nothing is changed there."""
    reads = isinstance(effect, HttpEffect) and effect.method in HTTP_READS
    return config.idempotency_header is not None or reads


def kept_body(body: bytes, hiding: Redactor, name: str = "body") -> dict[str, Any]:
    """A body as it is kept: the beginning without secrets, and the digest of the whole."""
    # A secret that begins within what is kept is seen whole: hidden first, cut after.
    text = body[: KEPT_BODY_BYTES * 2].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    kept = hiding.hide(text).encode()[:KEPT_BODY_BYTES].decode("utf-8", "ignore")
    return {
        name: kept,
        f"{name}_bytes": len(body),
        f"{name}_sha256": hashlib.sha256(body).hexdigest(),
        f"{name}_cut": len(body) > KEPT_BODY_BYTES,
    }


def _content(effect: HttpEffect | N8nEffect) -> tuple[dict[str, str], bytes | None]:
    headers = dict(effect.headers) if isinstance(effect, HttpEffect) else {}
    if isinstance(effect, HttpEffect) and effect.body_b64 is not None:
        return headers, base64.b64decode(effect.body_b64)
    if effect.json_body is None and isinstance(effect, HttpEffect):
        return headers, None
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    # The canonical form: the very bytes that the digest was computed over.
    return headers, rfc8785.dumps(effect.json_body if effect.json_body is not None else {})


def _shown(credential: Credential | None, secrets: dict[str, str]) -> dict[str, str]:
    if credential is None:
        return {}
    value = secrets.get(credential.secret)
    if value is None:
        raise WarrantRefused(f"the secret {credential.secret} is gone, or does not open", code="secret")
    match credential.shown_as:
        case "bearer":
            return {"Authorization": f"Bearer {value}"}
        case "basic":
            return {"Authorization": f"Basic {base64.b64encode(value.encode()).decode()}"}
        case "header":
            assert credential.header_name is not None, "validated"
            return {credential.header_name: value}


def _parts(value: str) -> tuple[str, ...]:
    """Of `user:password` the password alone would be telling, too."""
    return (value.partition(":")[2],) if ":" in value else ()
