"""`python -m workers.dev_issuer`: a development issuer on loopback, its tokens in the shape of Keycloak's.

The API verifies them with the code that verifies a real issuer's. It refuses to start beside a real one.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import time
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import uuid4

import structlog
import yaml
from aiohttp import web
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from models.settings import Settings
from workers.process import set_up_logging

log = structlog.get_logger(__name__)

REALM = "/realms/awgp"
DEFAULT_LIFETIME_SECONDS = 3600
MAX_LIFETIME_SECONDS = 12 * 3600
ALGORITHM = "EdDSA"


class DevUser(BaseModel):
    """A person of the seed file, as the issuer knows them."""

    model_config = ConfigDict(frozen=True)

    user: str
    name: str
    tenant: str
    email: str | None = None
    roles: tuple[str, ...] = ()


class TokenRequest(BaseModel):
    """Who wants a token, and of which kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    acr: Annotated[str, StringConstraints(max_length=64)] | None = None
    lifetime: Annotated[int, Field(ge=1, le=MAX_LIFETIME_SECONDS)] = DEFAULT_LIFETIME_SECONDS


def issuer_url(settings: Settings) -> str:
    """What the development issuer calls itself."""
    return f"http://{settings.dev_issuer_host}:{settings.dev_issuer_port}{REALM}"


def refuse_unless_alone(settings: Settings) -> None:
    """Stop unless this is a development installation without any other issuer.

    Raises:
        SystemExit: It says which setting stands against it.
    """
    if not settings.dev_issuer_enabled:
        raise SystemExit("the development issuer is off; AWGP_DEV_ISSUER_ENABLED=true turns it on (development only)")
    if not _is_loopback(settings.dev_issuer_host):
        raise SystemExit("AWGP_DEV_ISSUER_HOST must be a loopback address: whoever reaches it may become anybody")
    if settings.oidc_issuer not in {"", issuer_url(settings)}:
        raise SystemExit(
            f"a real issuer is configured (AWGP_OIDC_ISSUER={settings.oidc_issuer}): refusing to mint tokens beside it"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may come to mean anything


class DevIssuer:
    """Mints tokens for the seed file's users."""

    def __init__(
        self, *, issuer: str, audience: str, key_pem: str, password: str, users: Mapping[str, DevUser]
    ) -> None:
        imported = OKPKey.import_key(key_pem)
        kid = sha256(json.dumps(imported.as_dict(private=False), sort_keys=True).encode()).hexdigest()[:16]
        self._key = OKPKey.import_key(key_pem, {"kid": kid, "use": "sig", "alg": ALGORITHM})
        self._kid = kid
        self._issuer = issuer
        self._audience = audience
        self._password = password
        self._users = users

    def app(self) -> web.Application:
        """The issuer's endpoints."""
        app = web.Application(client_max_size=16_384)
        app.router.add_get(f"{REALM}/.well-known/openid-configuration", self._discovery)
        app.router.add_get(f"{REALM}/protocol/openid-connect/certs", self._certs)
        app.router.add_post("/token", self._token)
        return app

    def mint(self, wanted: TokenRequest) -> str:
        """A signed token for a user of the seed file.

        Raises:
            KeyError: There is no such user.
        """
        user = self._users[wanted.user]
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer, "aud": self._audience, "azp": "awgp-cli", "typ": "Bearer", "sub": user.user,
            "jti": str(uuid4()), "iat": now, "nbf": now, "exp": now + wanted.lifetime,
            "preferred_username": user.user, "name": user.name, "email": user.email, "email_verified": True,
            "realm_access": {"roles": list(user.roles)}, "groups": [f"/tenants/{user.tenant}"],
            "acr": wanted.acr or "1",
        }  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # RFC 9864 renames EdDSA; the signature is the same
            return jwt.encode(
                {"alg": ALGORITHM, "kid": self._kid, "typ": "JWT"}, claims, self._key, algorithms=[ALGORITHM]
            )

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self._issuer,
                "jwks_uri": f"{self._issuer}/protocol/openid-connect/certs",
                "id_token_signing_alg_values_supported": [ALGORITHM],
                "subject_types_supported": ["public"],
                "response_types_supported": ["token"],
            }
        )

    async def _certs(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [self._key.as_dict(private=False)]})

    async def _token(self, request: web.Request) -> web.Response:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self._password.encode()):
            return _problem(401, "Not authenticated", "Show the development issuer's password as a bearer token.")
        try:
            wanted = TokenRequest.model_validate_json(await request.read())
        except ValidationError as error:
            fault = error.errors()[0]
            return _problem(422, "Invalid input", f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}")
        if wanted.user not in self._users:
            known = ", ".join(sorted(self._users))
            return _problem(404, "Not found", f"No user {wanted.user!r}; there are: {known}.")
        token = self.mint(wanted)
        log.info("token_minted", user=wanted.user, acr=wanted.acr, lifetime=wanted.lifetime)
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": wanted.lifetime})


def _problem(status: int, title: str, detail: str) -> web.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json")


def read_users(seed_file: Path) -> dict[str, DevUser]:
    """The seed file's users by name; `user` there is the `sub` here.

    Raises:
        SystemExit: The file is not there or has another shape.
    """
    try:
        seed = cast("dict[str, list[dict[str, Any]]]", yaml.safe_load(seed_file.read_text(encoding="utf-8")))
        people = [DevUser.model_validate(person) for person in seed["principals"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise SystemExit(f"the seed file {seed_file} cannot be used: {error}") from error
    return {person.user: person for person in people}


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    set_up_logging(settings.log_level)
    refuse_unless_alone(settings)
    log.warning("development_issuer", words="Whoever has its password can become anybody. Never use it in production.")
    issuer = DevIssuer(
        issuer=issuer_url(settings),
        audience=settings.oidc_audience,
        key_pem=settings.secret("dev_issuer_key"),
        password=settings.secret("dev_issuer_password"),
        users=read_users(settings.seed_file),
    )
    web.run_app(issuer.app(), host=settings.dev_issuer_host, port=settings.dev_issuer_port, print=None)


if __name__ == "__main__":
    main()
