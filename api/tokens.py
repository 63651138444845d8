"""Verifying bearer tokens: JWS by the issuer's JWK set, claims in the shape that Keycloak gives.

Sources: RFC 7519 (JWT), RFC 8725 (JWT best current practice), OpenID Connect Core 1.0, section 2.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from pydantic import BaseModel, ConfigDict

from models.domain.errors import DependencyAway, Forbidden, Unauthenticated
from models.domain.principal import Role

ALGORITHMS = ("RS256", "ES256", "EdDSA", "Ed25519")
"""Asymmetric ones alone: `none` and HMAC are not among them. Ed25519 is EdDSA's name since RFC 9864."""
LEEWAY_SECONDS = 30
MAX_TOKEN_CHARS = 16_384
KEYS_MAX_AGE_SECONDS = 3600
KEYS_MIN_AGE_SECONDS = 10
"""An unknown `kid` makes us ask the issuer again, but not more often than this: anybody can invent a kid."""
KEYS_TIMEOUT_SECONDS = 5

_KEY_TYPES = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP", "Ed25519": "OKP"}
_TENANT_GROUP = re.compile(r"/tenants/([a-z0-9][a-z0-9-]{0,62})")

FetchKeys = Callable[[], Awaitable[Mapping[str, Any]]]
Key = RSAKey | ECKey | OKPKey


class Claims(BaseModel):
    """What a verified token says."""

    model_config = ConfigDict(frozen=True)

    issuer: str
    subject: str
    username: str
    display_name: str
    email: str | None
    tenant_slug: str
    roles: frozenset[Role]
    acr: str | None
    is_service: bool
    """The account of a program (Keycloak's client credentials), not of a human."""


def fetch_keys_from(url: str) -> FetchKeys:
    """Read the issuer's JWK set over HTTP."""

    async def fetch() -> Mapping[str, Any]:
        timeout = aiohttp.ClientTimeout(total=KEYS_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url) as response:
            response.raise_for_status()
            return cast("Mapping[str, Any]", await response.json(content_type=None))

    return fetch


class SigningKeys:
    """The issuer's public keys, cached, asked for again when an unknown one is named."""

    def __init__(self, fetch: FetchKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: list[Key] = []
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._lock = asyncio.Lock()

    async def candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """The keys that may have signed; without a `kid` every one of the algorithm's type.

        Raises:
            DependencyAway: The issuer does not answer and no key of it is known.
        """
        if self._read_at is None or self._clock() - self._read_at > KEYS_MAX_AGE_SECONDS:
            await self._refresh()
        found = self._matching(algorithm, kid)
        if not found:
            await self._refresh()
            found = self._matching(algorithm, kid)
        return found

    def _matching(self, algorithm: str, kid: str | None) -> list[Key]:
        wanted = [key for key in self._keys if key.key_type == _KEY_TYPES[algorithm]]
        return wanted if kid is None else [key for key in wanted if key.kid == kid]

    async def _refresh(self) -> None:
        async with self._lock:
            if self._tried_at is not None and self._clock() - self._tried_at < KEYS_MIN_AGE_SECONDS:
                if self._read_at is None:
                    raise DependencyAway("The identity provider does not answer.", dependency="identity provider")
                return
            self._tried_at = self._clock()
            try:
                self._keys = _import_keys(await self._fetch())
                self._read_at = self._clock()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, JoseError) as error:
                # Known keys stay good while the issuer is away: it being away revokes nothing.
                if self._read_at is None:
                    raise DependencyAway(
                        "The identity provider does not answer.", dependency="identity provider"
                    ) from error


def _import_keys(document: Mapping[str, Any]) -> list[Key]:
    keys: list[Key] = []
    for raw in cast("list[dict[str, Any]]", document.get("keys") or []):
        if raw.get("use", "sig") != "sig" or raw.get("kty") not in {"RSA", "EC", "OKP"}:
            continue
        imported = KeySet.import_key_set({"keys": [cast("Any", raw)]}).keys[0]
        if isinstance(imported, RSAKey | ECKey | OKPKey):
            keys.append(imported)
    return keys


class TokenVerifier:
    """Turns a bearer token into claims, or says why it does not hold."""

    def __init__(self, keys: SigningKeys, *, issuer: str, audience: str, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._now = now

    async def verify(self, token: str) -> Claims:
        """Check signature, issuer, audience and times.

        Raises:
            Unauthenticated: It does not hold.
            Forbidden: It holds, but names no tenant, or several.
            DependencyAway: The issuer's keys are not to be had.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise Unauthenticated("The token is too long.")
        header = _header(token)
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise Unauthenticated(f"The token's algorithm must be one of {', '.join(ALGORITHMS)}.")
        kid = header.get("kid")
        keys = await self._keys.candidates(algorithm, kid if isinstance(kid, str) else None)
        return self._claims(_first_that_verifies(token, algorithm, keys))

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        if claims.get("iss") != self._issuer:
            raise Unauthenticated("The token is of another issuer.")
        audience = claims.get("aud")
        if self._audience not in (cast("list[Any]", audience) if isinstance(audience, list) else [audience]):
            raise Unauthenticated(f"The token is not meant for {self._audience!r}.")
        now = self._now()
        expires, not_before = claims.get("exp"), claims.get("nbf", 0)
        if not _is_number(expires) or not _is_number(not_before):
            raise Unauthenticated("The token must say until when it holds (exp).")
        if cast("float", expires) + LEEWAY_SECONDS <= now:
            raise Unauthenticated("The token has expired; get a new one.")
        if cast("float", not_before) - LEEWAY_SECONDS > now:
            raise Unauthenticated("The token does not hold yet.")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject or len(subject) > 255:
            raise Unauthenticated("The token names nobody (sub).")
        return _shape(claims, self._issuer, subject)


def _header(token: str) -> Mapping[str, Any]:
    try:
        first = token.split(".")[0]
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError) as error:
        raise Unauthenticated("The token is not a JWT.") from error
    if not isinstance(header, dict) or token.count(".") != 2:
        raise Unauthenticated("The token is not a JWT.")
    return cast("Mapping[str, Any]", header)


def _first_that_verifies(token: str, algorithm: str, keys: list[Key]) -> Mapping[str, Any]:
    for key in keys:
        try:
            with warnings.catch_warnings():
                # RFC 9864 renames EdDSA; issuers still say EdDSA, which is the same signature.
                warnings.simplefilter("ignore", SecurityWarning)
                return jwt.decode(token, key, algorithms=[algorithm]).claims
        except (JoseError, ValueError, RecursionError):
            continue
    raise Unauthenticated("The token's signature is not one of the issuer's.")


def _shape(claims: Mapping[str, Any], issuer: str, subject: str) -> Claims:
    username = _text(claims.get("preferred_username")) or subject
    return Claims(
        issuer=issuer,
        subject=subject,
        username=username,
        display_name=_text(claims.get("name")) or username,
        email=_text(claims.get("email")) or None,
        tenant_slug=_tenant(claims.get("groups")),
        roles=_roles(claims.get("realm_access")),
        acr=_text(claims.get("acr")) or None,
        is_service=username.startswith("service-account-"),
    )


def _tenant(groups: object) -> str:
    names = [group for group in cast("list[Any]", groups) if isinstance(group, str)] if isinstance(groups, list) else []
    slugs = {match[1] for name in names if (match := _TENANT_GROUP.fullmatch(name))}
    if len(slugs) != 1:
        what = "several tenants" if slugs else "no tenant"
        raise Forbidden(f"The token names {what}; it must have exactly one group /tenants/<slug>.")
    return slugs.pop()


def _roles(access: object) -> frozenset[Role]:
    names = cast("dict[str, Any]", access).get("roles") if isinstance(access, dict) else None
    known = set(Role)
    return (
        frozenset(Role(name) for name in cast("list[Any]", names) if name in known)
        if isinstance(names, list)
        else frozenset()
    )


def _text(value: object) -> str:
    # What PostgreSQL cannot keep would make a valid token fail as a bug of ours.
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "").encode("utf-8", "ignore").decode()[:255]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
