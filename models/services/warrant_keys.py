"""Signing and verifying warrants: compact JWS, EdDSA (RFC 7515, RFC 8037)."""

from __future__ import annotations

from typing import Any, Protocol


class WarrantSigner(Protocol):
    """Held by the control worker alone."""

    def sign(self, claims: dict[str, Any]) -> str:
        """The compact JWS over `claims`."""
        ...


class WarrantVerifier(Protocol):
    """Held by who must see that a warrant is ours."""

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token whose signature holds.

        Raises:
            WarrantRefused: It does not.
        """
        ...
