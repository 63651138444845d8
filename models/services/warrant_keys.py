"""Signing and verifying warrants: compact JWS, EdDSA (RFC 7515, RFC 8037)."""

from __future__ import annotations

import json
import warnings
from typing import Any, Protocol, cast

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet, OKPKey

from models.domain.errors import WarrantRefused

_ALGORITHM = "Ed25519"
_ALGORITHMS = ["EdDSA", "Ed25519"]
"""One algorithm under its old name and its new one (RFC 9864)."""


class WarrantSigner(Protocol):
    """Held by the control worker alone."""

    def sign(self, claims: dict[str, Any]) -> str:
        """The compact JWS over `claims`."""
        ...

    def public_jwks(self) -> str:
        """The JWK set (JSON) that verifies what this key signs."""
        ...


class WarrantVerifier(Protocol):
    """Held by who must see that a warrant is ours."""

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature holds.

        Raises:
            WarrantRefused: It does not.
        """
        ...


class EdDsaSigner:
    """Signs with an Ed25519 private key (PEM, PKCS #8)."""

    def __init__(self, private_pem: str) -> None:
        self._key = OKPKey.import_key(private_pem)
        self._kid = self._key.thumbprint()

    def sign(self, claims: dict[str, Any]) -> str:
        """The compact JWS over `claims`, its header naming the key by its thumbprint (RFC 7638)."""
        header = {"alg": _ALGORITHM, "typ": "JWT", "kid": self._kid}
        return jws.serialize_compact(header, json.dumps(claims), self._key, algorithms=_ALGORITHMS)

    def public_jwks(self) -> str:
        """The JWK set (JSON) that verifies what this key signs."""
        public = self._key.as_dict(private=False)
        return json.dumps({"keys": [{**public, "kid": self._kid, "use": "sig", "alg": _ALGORITHM}]})


class JwksVerifier:
    """Verifies with a set of public keys (JSON)."""

    def __init__(self, public_jwks: str) -> None:
        keys = json.loads(public_jwks)["keys"]
        # A key's `alg` names the algorithm by its old or its new name; either verifies what we sign.
        self._keys = KeySet.import_key_set({"keys": [{k: v for k, v in key.items() if k != "alg"} for key in keys]})

    def verify(self, token: str) -> dict[str, Any]:
        """The claims, or `WarrantRefused`."""
        try:
            with warnings.catch_warnings():
                # Anybody may show us a token that says EdDSA (RFC 9864 renames it): no news for a log.
                warnings.simplefilter("ignore", SecurityWarning)
                verified = jws.deserialize_compact(token, self._keys, algorithms=_ALGORITHMS)
            claims: Any = json.loads(verified.payload)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise WarrantRefused("the warrant is not signed by a known key", code="signature") from error
        if not isinstance(claims, dict):
            raise WarrantRefused("the warrant's claims cannot be read", code="signature")
        return cast("dict[str, Any]", claims)
