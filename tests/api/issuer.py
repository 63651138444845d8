"""A test's own token issuer with real keys of every kind that we accept."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from models.domain.principal import Principal
from tests.fixtures.companies import ISSUER

AUDIENCE = "awgp"


class TestIssuer:
    __test__ = False

    def __init__(self) -> None:
        self.keys: dict[str, RSAKey | ECKey | OKPKey] = {
            "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
            "ES256": ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"}),
            "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"}),
        }
        self.fetched = 0

    async def fetch(self) -> Mapping[str, Any]:
        self.fetched += 1
        return {"keys": [key.as_dict(private=False) for key in self.keys.values()]}

    def claims(self, principal: Principal | None = None, **changes: Any) -> dict[str, Any]:
        """Claims in Keycloak's shape; a change to None leaves the claim out."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": ["account", AUDIENCE],
            "sub": principal.subject if principal else "acme-requester",
            "exp": now + 300,
            "iat": now,
            "preferred_username": principal.username if principal else "acme-requester",
            "name": principal.display_name if principal else "Requester of acme",
            "email": principal.email if principal else "requester@acme.example.com",
            "realm_access": {"roles": sorted(principal.roles) if principal else ["requester"]},
            "groups": [f"/tenants/{principal.tenant_slug if principal else 'acme'}"],
            "acr": (principal.acr if principal else "2") or "1",
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(
        self,
        principal: Principal | None = None,
        alg: str = "EdDSA",
        header: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        return self.sign(self.claims(principal, **changes), self.keys[alg], alg, header)

    def sign(self, claims: dict[str, Any], key: Any, alg: str, header: dict[str, Any] | None = None) -> str:
        kid = {} if key.kid is None else {"kid": key.kid}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.encode({"alg": alg, **kid, **(header or {})}, claims, key, algorithms=[alg])


def unsigned(claims: dict[str, Any], alg: str = "none") -> str:
    """A token that claims to need no signature."""
    return f"{_part({'alg': alg, 'typ': 'JWT'})}.{_part(claims)}."


def confused(claims: dict[str, Any], public_pem: bytes) -> str:
    """HMAC with the issuer's public key as the secret: the classic confusion of algorithms."""
    signed = f"{_part({'alg': 'HS256', 'kid': 'rsa'})}.{_part(claims)}"
    mac = hmac.new(public_pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
