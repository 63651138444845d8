"""The same by the Model Context Protocol: four tools over streamable HTTP, without sessions, by the official SDK.

A tool that waits for people waits for some seconds and then says that they are asked: calling it again with the same
arguments asks nothing anew, and waits on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import mcp_types as mcp
import rfc8785
import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel, Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.asking import WAIT_SECONDS, ask_and_wait, put_question, tell_progress
from api.deps import Deps
from api.problems import to_domain
from api.schemas.actions import ActionBody, QuestionBody
from api.schemas.fields import Body
from api.waiting import until
from models.domain.action import ActionMode, AgentCaller
from models.domain.errors import InvalidInput
from models.services import agent_work, questions
from models.services.agent_work import Progress
from models.services.questions import QuestionView
from models.services.uploads import Uploaded

log = structlog.get_logger(__name__)

MAX_ARTIFACT_BYTES = 1024 * 1024
_SCOPE_KEY = "awgp.agent"
_AGAIN = " While people have not decided, call it again with the same arguments: that waits, and asks nothing anew."


class ArtifactBody(Body):
    """A small file that came out of the work."""

    path: str = Field(min_length=1, max_length=1024, description="Relative, such as report/summary.md.")
    text: str | None = Field(None, description="The file's text; or content_b64.")
    content_b64: str | None = Field(None, description="Its bytes in base64; at most 1 MiB of them.")

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if (self.text is None) == (self.content_b64 is None):
            raise ValueError("takes either text or content_b64")
        return self

    def content(self) -> bytes:
        """The bytes.

        Raises:
            InvalidInput: They cannot be read, or are too many.
        """
        try:
            found = (self.text or "").encode() if self.content_b64 is None else _decoded(self.content_b64)
        except (binascii.Error, ValueError) as error:
            raise _invalid("content", "cannot be read") from error
        if len(found) > MAX_ARTIFACT_BYTES:
            raise _invalid(
                "content", f"is more than {MAX_ARTIFACT_BYTES} bytes; write it below AWGP_OUTPUT_DIR instead"
            )
        return found


class AskBody(QuestionBody):
    """A question, and how long to wait for its answer."""

    wait_seconds: Annotated[float, Field(ge=0, le=WAIT_SECONDS)] = WAIT_SECONDS


@dataclass(frozen=True)
class _Tool:
    """A tool: what it takes, and what it does."""

    description: str
    takes: type[BaseModel]
    act: Callable[[Deps, AgentCaller, Any], Awaitable[BaseModel | dict[str, Any]]]


class AgentMcp:
    """The MCP server over the API's dependencies; `run` it while the application lives."""

    def __init__(self, given: Deps) -> None:
        server = Server(
            "awgp",
            title="AWGP",
            instructions="Ask before you act: request_action for anything with an effect outside of your sandbox.",
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        self._given = given
        # Who may call is said by the bearer, never by a Host header.
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self._manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, security_settings=security
        )
        self.run = self._manager.run

    def response(self, caller: AgentCaller) -> Response:
        """What answers one request of this caller's."""
        return _McpResponse(self._manager, caller)

    async def _list(self, _context: Any, _params: Any) -> mcp.ListToolsResult:
        return mcp.ListToolsResult(
            tools=[
                mcp.Tool(name=name, description=tool.description, input_schema=tool.takes.model_json_schema())
                for name, tool in TOOLS.items()
            ]
        )

    async def _call(
        self, context: ServerRequestContext[Any, Request], params: mcp.CallToolRequestParams
    ) -> mcp.CallToolResult:
        assert context.request is not None, "only HTTP leads here"
        caller: AgentCaller = context.request.scope[_SCOPE_KEY]
        tool = TOOLS.get(params.name)
        if tool is None:
            return _failed(f"there is no tool {params.name[:64]!r}; there are {', '.join(TOOLS)}")
        try:
            return _said(await tool.act(self._given, caller, tool.takes.model_validate(params.arguments or {})))
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            return _failed(
                "; ".join(f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in faults)
            )
        except Exception as error:
            known = to_domain(error)
            if known is None:
                log.exception("tool_failed", tool=params.name)
                return _failed("this is our fault; try again, and tell the operator")
            return _failed(known.detail, **known.extra)


class _McpResponse(Response):
    """Lets the SDK answer in the place of a route."""

    def __init__(self, manager: StreamableHTTPSessionManager, caller: AgentCaller) -> None:
        super().__init__()
        self._manager = manager
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        await self._manager.handle_request({**scope, _SCOPE_KEY: self._caller}, receive, send)


async def _request_action(given: Deps, caller: AgentCaller, body: ActionBody) -> BaseModel:
    return await ask_and_wait(_stays, given, caller, body.to_domain(), body.idempotency_key or _key(body))


async def _report_progress(given: Deps, caller: AgentCaller, body: Progress) -> dict[str, Any]:
    await tell_progress(given, caller, body)
    return {"told": True}


async def _save_artifact(given: Deps, caller: AgentCaller, body: ArtifactBody) -> dict[str, Any]:
    content = body.content()
    saved = Uploaded(sha256=await given.blobs.put(content), size=len(content))
    async with given.db.tenant_session(caller.tenant_id) as session:
        await agent_work.save_artifact(session, caller, body.path, saved)
    return {"path": body.path, "sha256": saved.sha256, "size": saved.size}


async def _ask_requester(given: Deps, caller: AgentCaller, body: AskBody) -> BaseModel:
    asked = await put_question(given, caller, body.to_domain(), body.idempotency_key or _key(body))

    async def look() -> tuple[QuestionView, bool]:
        async with given.db.tenant_session(caller.tenant_id) as session:
            found = await questions.read_own(session, caller, asked.id)
        return found, found.answer is not None

    return await until(_stays, given, caller.tenant_id, f"question:{asked.id}", body.wait_seconds, look)


TOOLS: dict[str, _Tool] = {
    "request_action": _Tool(
        "Ask leave for an action, and have its effect performed through a connector. Answers `permitted`, `performed`,"
        " `denied` (with the reason: do not ask for the same again), `edited` (go on with the parameters in the answer)"
        " or `pending`." + _AGAIN + " To do the very same thing twice, give each its own idempotency_key.",
        ActionBody,
        _request_action,
    ),
    "report_progress": _Tool("Say how far the work is; people see it at once.", Progress, _report_progress),
    "save_artifact": _Tool(
        "Save a small file (at most 1 MiB) as a result of the work. Larger ones are written below AWGP_OUTPUT_DIR.",
        ArtifactBody,
        _save_artifact,
    ),
    "ask_requester": _Tool(
        "Ask the person who asked for this work; `answer` is null while there is none." + _AGAIN,
        AskBody,
        _ask_requester,
    ),
}


async def _stays() -> bool:
    """The wait is short, and the SDK reads the connection itself."""
    return False


def _key(body: BaseModel) -> str:
    """The same arguments, the same thing."""
    asked = body.model_dump(mode="json", exclude={"idempotency_key", "wait_seconds", "mode"})
    asked["staged"] = isinstance(body, ActionBody) and body.mode is ActionMode.STAGED
    try:
        canonical = rfc8785.dumps(asked)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise _invalid("arguments", f"have no canonical JSON form: {str(error)[:160]}") from error
    return f"mcp-{hashlib.sha256(canonical).hexdigest()}"


def _decoded(content: str) -> bytes:
    return base64.b64decode(content, validate=True)


def _said(answer: BaseModel | dict[str, Any]) -> mcp.CallToolResult:
    document = answer if isinstance(answer, dict) else answer.model_dump(mode="json")
    text = json.dumps(document, ensure_ascii=False)
    return mcp.CallToolResult(content=[mcp.TextContent(text=text)], structured_content=document)


def _failed(words: str, **extra: Any) -> mcp.CallToolResult:
    """An error that the model reads and may mend: never one of the protocol."""
    code = extra.get("code")
    text = f"{words} ({code})" if code else words
    return mcp.CallToolResult(content=[mcp.TextContent(text=text)], is_error=True)


def _invalid(where: str, what: str) -> InvalidInput:
    return InvalidInput(f"{where}: {what}", errors=[{"where": where, "what": what}])
