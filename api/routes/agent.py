"""What agents call, inside a run (through the bridge) and elsewhere: actions, questions, progress, state, context."""

from __future__ import annotations

import hashlib
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Request, Response

from api.agent_auth import Agent
from api.agent_mcp import AgentMcp
from api.asking import ask_and_wait, base_of, put_question, tell_progress, wait_for
from api.body import drain
from api.deps import Given
from api.problems import BadRequestError, TooLargeError
from api.schemas.actions import ActionBody, OwnActions, QuestionBody, StateAnswer
from api.waiting import Wait, until
from models.domain.action import ActionStatus
from models.domain.action_views import ActionAnswer
from models.domain.errors import DependencyAway, NotFound
from models.services import actions, agent_work, questions
from models.services.agent_work import AgentContext, Progress
from models.services.questions import QuestionView
from models.services.uploads import Uploaded

router = APIRouter(prefix="/v1/agent", tags=["agents"])
elsewhere = APIRouter(prefix="/v1/actions", tags=["agents"])

RETRY_SECONDS = 1
MAX_STATE_BYTES = 1024 * 1024

IdempotencyKey = Annotated[
    str | None, Header(description="Your own name for this request: the same key, the same thing.")
]


@router.post("/actions", responses={202: {"model": ActionAnswer, "description": "People are asked; poll wait_url."}})
async def ask(
    body: ActionBody,
    request: Request,
    response: Response,
    caller: Agent,
    given: Given,
    idempotency_key: IdempotencyKey = None,
) -> ActionAnswer:
    """Ask leave for an action; in mode `wait` the answer is held back up to 25 s for people to decide."""
    key = one_key(request, idempotency_key, body.idempotency_key)
    answer = await ask_and_wait(request.is_disconnected, given, caller, body.to_domain(), key)
    return _said(response, answer)


@router.get("/actions")
async def list_own(caller: Agent, given: Given) -> OwnActions:
    """The actions of the agent's own work item, in the order in which they were asked for."""
    async with given.db.tenant_session(caller.tenant_id) as session:
        rows = await actions.list_own(session, caller)
    return OwnActions(items=[actions.answer_of(row, base_of(caller)) for row in rows])


@router.get(
    "/actions/{action_id}", responses={202: {"model": ActionAnswer, "description": "Nothing has come of it yet."}}
)
async def read(
    action_id: UUID, request: Request, response: Response, caller: Agent, given: Given, wait: Wait = 0
) -> ActionAnswer:
    """One of the agent's own actions as it stands, or as it stands after `wait` seconds at most."""
    return _said(response, await wait_for(request.is_disconnected, given, caller, action_id, wait))


@elsewhere.post("", responses={202: {"model": ActionAnswer, "description": "People are asked; poll wait_url."}})
async def ask_elsewhere(
    body: ActionBody,
    request: Request,
    response: Response,
    caller: Agent,
    given: Given,
    idempotency_key: IdempotencyKey = None,
) -> ActionAnswer:
    """The same for an agent that runs elsewhere, with its assistant's key."""
    return await ask(body, request, response, caller, given, idempotency_key)


@elsewhere.get("/{action_id}", responses={202: {"model": ActionAnswer, "description": "Nothing has come of it yet."}})
async def read_elsewhere(
    action_id: UUID, request: Request, response: Response, caller: Agent, given: Given, wait: Wait = 0
) -> ActionAnswer:
    """One of the agent's own actions."""
    return await read(action_id, request, response, caller, given, wait)


@router.post("/progress", status_code=204)
async def progress(body: Progress, caller: Agent, given: Given) -> None:
    """Say how far the work is; people see it in the item's timeline."""
    await tell_progress(given, caller, body)


@router.post("/questions")
async def ask_requester(
    body: QuestionBody, request: Request, caller: Agent, given: Given, idempotency_key: IdempotencyKey = None
) -> QuestionView:
    """Ask whoever asked for the work; poll `GET /questions/{id}` for the answer."""
    key = one_key(request, idempotency_key, body.idempotency_key)
    return await put_question(given, caller, body.to_domain(), key)


@router.get("/questions/{question_id}")
async def read_question(
    question_id: UUID, request: Request, caller: Agent, given: Given, wait: Wait = 0
) -> QuestionView:
    """One of the agent's own questions, with its answer once there is one."""

    async def look() -> tuple[QuestionView, bool]:
        async with given.db.tenant_session(caller.tenant_id) as session:
            found = await questions.read_own(session, caller, question_id)
        return found, found.answer is not None

    return await until(request.is_disconnected, given, caller.tenant_id, f"question:{question_id}", wait, look)


@router.put(
    "/state",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def save_state(request: Request, caller: Agent, given: Given) -> StateAnswer:
    """Keep up to 1 MiB of any content for the run's next attempt; what was kept before is replaced."""
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_STATE_BYTES:
            await drain(request.receive)
            raise TooLargeError(f"A state has at most {MAX_STATE_BYTES} bytes.", max_bytes=MAX_STATE_BYTES)
    async with given.db.tenant_session(caller.tenant_id) as session:
        await agent_work.check_room_for_state(session, caller)
    digest = await given.blobs.put(content)
    async with given.db.tenant_session(caller.tenant_id) as session:
        await agent_work.save_state(session, caller, Uploaded(sha256=digest, size=len(content)))
    return StateAnswer(sha256=digest, size=len(content))


@router.get(
    "/state",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "description": "The bytes.",
        }
    },
)
async def load_state(caller: Agent, given: Given) -> Response:
    """What an attempt of this run saved last."""
    async with given.db.tenant_session(caller.tenant_id) as session:
        saved = await agent_work.saved_state(session, caller)
    if saved is None:
        raise NotFound("no attempt of this run has saved a state")
    try:
        content = await given.blobs.get(saved.sha256)
    except FileNotFoundError as error:
        raise DependencyAway("The blob store does not have the state at the moment.", dependency="blobs") from error
    if hashlib.sha256(content).hexdigest() != saved.sha256:
        raise DependencyAway("The blob store has something else in the state's place.", dependency="blobs")
    return Response(content, media_type="application/octet-stream")


@router.get("/context")
async def context(caller: Agent, given: Given) -> AgentContext:
    """What the agent is for, its inputs, and what is left to it of time, money and actions."""
    async with given.db.tenant_session(caller.tenant_id) as session:
        return await agent_work.context_of(session, caller)


@router.post("/mcp", include_in_schema=False)
async def speak_mcp(request: Request, caller: Agent) -> Response:
    """The Model Context Protocol (streamable HTTP); the SDK answers.

    Without sessions there is no stream to open and nothing to end: GET and DELETE are 405, as the protocol allows.
    """
    server: AgentMcp = request.app.state.mcp
    return server.response(caller)


def one_key(request: Request, key: str | None, in_body: str | None) -> str:
    """The request's idempotency key, from its header or its body.

    Raises:
        BadRequestError: There is none, or two that differ.
    """
    named = {*request.headers.getlist("idempotency-key"), *([in_body] if in_body is not None else [])}
    if len(named) > 1:
        what = "stands twice; one request has one"
        raise BadRequestError(f"Idempotency-Key: {what}", errors=[{"where": "header.Idempotency-Key", "what": what}])
    found = key or in_body
    if not found:
        raise BadRequestError(
            "Send an Idempotency-Key header (or idempotency_key), so that a repeated request asks no second time.",
            errors=[{"where": "header.Idempotency-Key", "what": "is missing"}],
        )
    return found


def _said(response: Response, answer: ActionAnswer) -> ActionAnswer:
    if answer.status is ActionStatus.PENDING or not answer.settled:
        response.status_code = 202
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return answer
