"""Agents at the door: a run's warrant, or an assistant's key, becomes a caller. People's tokens open nothing here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends, Header, Request

from api.auth import Credentials
from api.deps import Deps, Given
from api.problems import to_domain
from models.domain.action import AgentCaller
from models.domain.errors import Forbidden, Unauthenticated
from models.domain.principal import service_principal
from models.services import assistant_keys, audit
from models.services.noise import NoiseMeter
from models.services.operations import at_most_every

SAY_REFUSAL_AGAIN_SECONDS = 60
"""A refusal is audited at most once in so long for each run and reason: a loop inside must not fill the trail."""

RunAttempt = Annotated[int | None, Header(alias="X-Awgp-Run-Attempt", ge=0, le=2**31 - 1, include_in_schema=False)]


async def agent(
    request: Request, given: Given, credentials: Credentials, attempt: RunAttempt = None
) -> AsyncGenerator[AgentCaller]:
    """The agent behind the request.

    What refuses a known one, here or behind the route, is audited here.

    Raises:
        Unauthenticated: No credential, or one that does not hold.
        Forbidden: The run does not live, is in another attempt, or is halted; `code` says which.
    """
    noise: NoiseMeter = request.app.state.noise
    try:
        if credentials is None:
            raise Unauthenticated("Send an assistant's key: Authorization: Bearer awgp_ak_….")
        caller = await _caller(given, credentials.credentials)
    except Unauthenticated:
        noise.count("unauthenticated_agent")
        raise
    try:
        await _require_live(given, caller, credentials.credentials, attempt)
        yield caller
    except Exception as error:
        refusal = to_domain(error)
        if isinstance(refusal, Forbidden):
            await _record_refusal(given, caller, f"{request.method} {_route(request)}", refusal)
        raise


async def _caller(given: Deps, token: str) -> AgentCaller:
    if token.startswith(assistant_keys.PREFIX):
        return await assistant_keys.caller_of(given.db, token)
    if given.warrants is None:
        raise Unauthenticated("This is no assistant's key, and warrants are not verified here.")
    claims = given.warrants.claims(token)
    return AgentCaller(
        tenant_id=claims.tenant,
        assistant_id=claims.assistant,
        work_item_id=claims.work_item,
        run_id=claims.run,
        attempt=claims.attempt,
        warrant_id=claims.jti,
    )


async def _require_live(given: Deps, caller: AgentCaller, token: str, attempt: int | None) -> None:
    """A run's warrant holds while the run lives, by a copy of the rows that is at most 5 s old."""
    if not caller.is_run or given.warrants is None:
        return
    if attempt is not None and attempt != caller.attempt:
        raise Forbidden(f"the warrant is for attempt {caller.attempt}, not {attempt}", code="attempt")
    await given.live_runs.check(given.warrants.claims(token))


async def _record_refusal(given: Deps, caller: AgentCaller, route: str, refusal: Forbidden) -> None:
    code = str(refusal.extra.get("code", refusal.type))
    principal = service_principal("agent", caller.tenant_id)
    async with given.db.session_for(principal) as session:
        op_id = f"agent-refused/{caller.run_id or caller.key_id}/{code}"
        if not await at_most_every(session, caller.tenant_id, op_id, SAY_REFUSAL_AGAIN_SECONDS):
            return
        audit.record(
            session,
            principal,
            kind="agent.refused",
            subject=f"run/{caller.run_id}" if caller.is_run else f"assistant/{caller.assistant_id}",
            summary=f"An agent may not call {route}: {refusal.detail}",
            work_item_id=caller.work_item_id,
            data={"code": code, "attempt": caller.attempt, "detail": refusal.detail},
        )


def _route(request: Request) -> str:
    return getattr(request.scope.get("route"), "path", "an unknown route")


Agent = Annotated[AgentCaller, Depends(agent)]
