"""Checks the signed leave to run. Whoever can talk to the runtime still cannot make it run anything."""

from __future__ import annotations

from uuid import UUID

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from sandbox.link.messages import Place
from sandbox.spec import continuation_digest, spec_digest

CLOCK_LEEWAY_SECONDS = 30
_ALGORITHMS = ["EdDSA", "Ed25519"]
"""One algorithm under its old name and its new one (RFC 8037, RFC 9864)."""


class WarrantRefusedError(Exception):
    """This warrant does not allow this run, here, now."""


class WarrantClaims(BaseModel):
    """What a warrant says; fields that the runtime does not need are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    iss: str
    aud: str
    jti: str
    tenant: UUID
    assistant: UUID
    work_item: UUID
    run: UUID
    attempt: int
    spec_digest: str
    continuation: str | None = None
    claim_before: float
    max_seconds: float


def check_warrant(place: Place, jwks: KeySet, tenant_id: UUID, now: float) -> WarrantClaims:
    """Verifies a placement's warrant and that it is for exactly this placement.

    Args:
        place: What the broker asks for.
        jwks: Public keys of the control worker.
        tenant_id: The tenant this runtime is enrolled for.
        now: Unix seconds.

    Raises:
        WarrantRefusedError: With the first thing that does not fit.
    """
    claims = _verified_claims(place.warrant, jwks)
    spec = place.spec
    expected = {
        "issuer": claims.iss == "awgp",
        "audience": claims.aud == "run",
        "tenant": claims.tenant == tenant_id == spec.tenant_id,
        "assistant": claims.assistant == spec.assistant_id,
        "work item": claims.work_item == spec.work_item_id,
        "run": claims.run == place.run_id == spec.run_id,
        "attempt": claims.attempt == place.attempt,
        "spec digest": claims.spec_digest == spec_digest(spec),
        "continuation": claims.continuation == continuation_digest(place.continuation),
        "wall time": spec.limits.wall_seconds <= claims.max_seconds,
        "claim-before": now <= claims.claim_before + CLOCK_LEEWAY_SECONDS,
    }
    wrong = [name for name, holds in expected.items() if not holds]
    if wrong:
        raise WarrantRefusedError("the warrant does not fit: " + ", ".join(wrong))
    return claims


def _verified_claims(warrant: str, jwks: KeySet) -> WarrantClaims:
    try:
        verified = jws.deserialize_compact(warrant, jwks, algorithms=_ALGORITHMS)
        return WarrantClaims.model_validate_json(verified.payload)
    except (JoseError, ValidationError, ValueError, TypeError, KeyError) as error:
        raise WarrantRefusedError("the warrant is not signed by a known key, or not readable") from error
