"""Who calls: a bearer token becomes a principal of one tenant, and the access table is asked."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import access
from api.deps import Deps, Given
from api.problems import to_domain
from api.tokens import Claims
from models.domain.errors import Forbidden, NotFound, Unauthenticated
from models.domain.principal import Principal, PrincipalKind
from models.services import audit, principals, tenants, work_items
from models.services.noise import NoiseMeter

SEEN_SECONDS = 300
"""How long a principal's row is taken as known; what the token says is read from the token each time."""
SEEN_MOST = 10_000

_bearer = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="An access token of the configured OpenID Connect issuer."
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class SeenPrincipals:
    """Principals whose rows were written lately, by everything their token said of them."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Claims, tuple[float, Principal]] = OrderedDict()

    def get(self, claims: Claims) -> Principal | None:
        """The principal, if it was seen within `SEEN_SECONDS` with the very same claims."""
        found = self._seen.get(claims)
        return found[1] if found is not None and time.monotonic() - found[0] < SEEN_SECONDS else None

    def put(self, claims: Claims, principal: Principal) -> None:
        """Remember; the longest known is forgotten first."""
        self._seen[claims] = (time.monotonic(), principal)
        self._seen.move_to_end(claims)
        while len(self._seen) > SEEN_MOST:
            self._seen.popitem(last=False)


async def caller(request: Request, given: Given, credentials: Credentials) -> AsyncGenerator[Principal]:
    """The principal behind the request, allowed to call this route.

    What refuses a known principal, the table here or a service behind the route, is audited here and nowhere else;
    `NotDecidable` is none of these: who decides audits it in the item's own trail.

    Raises:
        Unauthenticated: No token, or one that does not hold.
        Forbidden: The tenant is unknown, or no role of the principal's is in the route's row.
    """
    claims = await _claims(request, given, credentials)
    principal = await _known(given, request, claims)
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        raise Forbidden("No route, no right.")
    try:
        access.require(principal, request.method, route.path)
        yield principal
    except Exception as error:
        refusal = to_domain(error)
        if isinstance(refusal, Forbidden):
            await _record_refusal(given, principal, f"{request.method} {route.path}", refusal, _item_of(request))
        raise


def _item_of(request: Request) -> UUID | None:
    """The work item that the path names, if it is one's id at all."""
    try:
        return UUID(request.path_params["work_item_id"])
    except (KeyError, ValueError):
        return None


async def _claims(request: Request, given: Deps, credentials: HTTPAuthorizationCredentials | None) -> Claims:
    """What the token says. One that does not hold is counted: it has no tenant whose trail could take it."""
    noise: NoiseMeter = request.app.state.noise
    try:
        if credentials is None:
            raise Unauthenticated("Send a bearer token: Authorization: Bearer <JWT>.")
        return await given.tokens.verify(credentials.credentials)
    except Unauthenticated:
        noise.count("unauthenticated")
        raise


async def _record_refusal(
    given: Deps, principal: Principal, route: str, refusal: Forbidden, work_item_id: UUID | None
) -> None:
    """Audited in a transaction of its own: the one that was asked for never began, or is rolled back.

    In the item's timeline only where the principal's company sees the item: the path is the caller's word.
    """
    async with given.db.session_for(principal) as session:
        try:
            item = work_item_id and (await work_items.read(session, principal, work_item_id)).id
        except NotFound:
            item = None
        audit.record(
            session,
            principal,
            kind="access.refused",
            subject=f"route/{route}",
            summary=f"{principal.display_name or principal.subject} may not call {route}: {refusal.detail}",
            work_item_id=item,
            data={"roles": sorted(principal.roles), "detail": refusal.detail},
        )


async def _known(given: Deps, request: Request, claims: Claims) -> Principal:
    seen: SeenPrincipals = request.app.state.seen_principals
    principal = seen.get(claims)
    if principal is None:
        tenant = await tenants.find(given.db, claims.tenant_slug)
        if tenant is None:
            raise Forbidden(f"There is no tenant {claims.tenant_slug!r} here.")
        async with given.db.tenant_session(tenant.tenant_id) as session:
            principal = await principals.seen(
                session,
                tenant,
                issuer=claims.issuer,
                subject=claims.subject,
                username=claims.username,
                display_name=claims.display_name,
                email=claims.email,
                roles=claims.roles,
                acr=claims.acr,
                kind=PrincipalKind.SERVICE if claims.is_service else PrincipalKind.USER,
            )
        seen.put(claims, principal)
    return principal


Caller = Annotated[Principal, Depends(caller)]
