"""The public API as a typed client of these tests: every wait has an end, and an answer of 503 is waited out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from uuid import UUID, uuid4

import aiohttp

from api.schemas.approvals import DecisionAnswer
from api.schemas.assistants import AssistantAnswer
from api.schemas.budgets import BudgetAnswer
from api.schemas.files import FileAnswer
from api.schemas.people import Me
from api.schemas.work_items import DryRunAnswer, EventAnswer, WorkItemAnswer
from models.domain.views import ApprovalContext, ChainReport, HaltState
from tests.e2e.polling import PAUSE_SECONDS
from workers.stack.stack import Stack

T = TypeVar("T")
Json = dict[str, Any]
AWAY = (aiohttp.ClientConnectionError, TimeoutError)


class ProblemError(Exception):
    """The API answered a problem document.

    Attributes:
        status: Of HTTP.
        problem: The document.
        content_type: As it came.
    """

    def __init__(self, status: int, problem: Json, content_type: str) -> None:
        super().__init__(f"{status} {problem}")
        self.status = status
        self.problem = problem
        self.content_type = content_type


@dataclass(frozen=True)
class SseEvent:
    """One server-sent event."""

    name: str
    id: str
    data: Json


class Console:
    """Everybody's way to one stack's API; `alice = console.user("alice")`."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._tokens: dict[tuple[str, str], str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use `async with`"
        return self._session

    def user(self, name: str, acr: str = "2") -> User:
        """Somebody of the seed file; `acr` "2" is a sign-in with a second factor."""
        return User(self, name, acr)

    async def token(self, name: str, acr: str) -> str:
        """A token of the development issuer, which speaks to who has its password alone."""
        known = self._tokens.get((name, acr))
        if known is None:
            known = self._tokens[name, acr] = await self._mint(name, acr)
        return known

    async def _mint(self, name: str, acr: str) -> str:
        url = f"http://127.0.0.1:{self.stack.ports.dev_issuer}/token"
        headers = {"Authorization": f"Bearer {self.stack.credentials.dev_issuer_password}"}
        body = {"user": name, "acr": acr, "lifetime": 12 * 3600}
        async with self.session.post(url, json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            return str((await response.json())["access_token"])


class User:
    """What one person can do through the API."""

    def __init__(self, console: Console, name: str, acr: str) -> None:
        self._console = console
        self.name = name
        self._acr = acr

    @asynccontextmanager
    async def open(self, method: str, path: str, **options: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
        """One request; a problem is raised as `ProblemError`."""
        token = await self._console.token(self.name, self._acr)
        headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        url = self._console.stack.api_url + path
        async with self._console.session.request(method, url, headers=headers, **options) as response:
            if response.status >= 400:
                text = await response.text()
                try:
                    problem = json.loads(text)
                except ValueError:
                    problem = {"not_json": text[:500]}
                raise ProblemError(response.status, problem, response.content_type)
            yield response

    async def call(self, method: str, path: str, body: Json | None = None, **options: Any) -> Any:
        """One request with a JSON body; its JSON answer."""
        async with self.open(method, path, json=body, **options) as response:
            return await response.json()

    async def me(self) -> Me:
        return Me.model_validate(await self.call("GET", "/v1/me"))

    # --- Work items -------------------------------------------------------------------------------------------------

    async def upload(self, path: Path, name: str | None = None) -> Json:
        """Bring a file; answers what a work item's `inputs` name it by."""
        headers = {"Content-Type": "application/octet-stream"}
        content = await asyncio.to_thread(path.read_bytes)
        async with self.open("POST", "/v1/files", data=content, headers=headers) as response:
            answer = await response.json()
        return {"path": name or path.name, "sha256": answer["sha256"], "size": answer["size"]}

    async def submit(self, body: Json, key: str | None = None) -> WorkItemAnswer:
        """Ask for work. A request that finds the API away is repeated under its key, as a client should."""
        headers = {"Idempotency-Key": key or str(uuid4())}

        async def once() -> WorkItemAnswer:
            answer = await self.call("POST", "/v1/work-items", body, headers=headers)
            return WorkItemAnswer.model_validate(answer)

        return await patiently(once)

    async def dry_run(self, body: Json) -> DryRunAnswer:
        return DryRunAnswer.model_validate(await self.call("POST", "/v1/work-items/dry-run", body))

    async def item(self, item_id: UUID) -> WorkItemAnswer:
        return WorkItemAnswer.model_validate(await self.call("GET", f"/v1/work-items/{item_id}"))

    async def until(
        self,
        item_id: UUID,
        holds: Callable[[WorkItemAnswer], bool] | Collection[str],
        seconds: float = 60,
        pause: float = PAUSE_SECONDS,
    ) -> WorkItemAnswer:
        """Read the item until it holds; a final status that does not is an error at once.

        Raises:
            AssertionError: It did not hold in time; says what was seen last.
        """
        test = holds if callable(holds) else (lambda item: item.status in holds)
        deadline = time.monotonic() + seconds
        last: WorkItemAnswer | None = None
        while time.monotonic() < deadline:
            try:
                last = await self.item(item_id)
            except ProblemError as error:
                if error.status != 503:
                    raise
            except AWAY:
                pass
            if last is not None and test(last):
                return last
            if last is not None and last.status.is_final:
                raise AssertionError(f"{item_id} is {last.status} ({last.outcome}, {last.reason!r})")
            await asyncio.sleep(pause)
        raise AssertionError(f"{item_id} did not get there in {seconds:.0f} s: {last}")

    async def ended(self, item_id: UUID, seconds: float = 90, pause: float = PAUSE_SECONDS) -> WorkItemAnswer:
        """The item once it is final, however it ended."""
        return await self.until(item_id, lambda item: item.status.is_final, seconds, pause)

    async def cancel(self, item_id: UUID, reason: str = "not needed any more") -> WorkItemAnswer:
        answer = await self.call("POST", f"/v1/work-items/{item_id}/cancel", {"reason": reason})
        return WorkItemAnswer.model_validate(answer)

    async def timeline(self, item_id: UUID) -> list[EventAnswer]:
        found: list[EventAnswer] = []
        after: int | None = 0
        while after is not None:
            page = await self.call("GET", f"/v1/work-items/{item_id}/timeline?after={after}&limit=200")
            found += [EventAnswer.model_validate(event) for event in page["items"]]
            after = page["next_after"]
        return found

    async def files(self, item_id: UUID) -> list[FileAnswer]:
        answer = await self.call("GET", f"/v1/work-items/{item_id}/files")
        return [FileAnswer.model_validate(file) for file in answer["items"]]

    async def file(self, item_id: UUID, path: str, direction: str = "out") -> bytes:
        async with self.open("GET", f"/v1/work-items/{item_id}/files/{direction}/{path}") as response:
            return await response.read()

    async def events(self, item_id: UUID, *, follow: bool = True, after: str = "") -> AsyncGenerator[SseEvent]:
        """The run's output as it comes; ends with the event `end`."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
        path = f"/v1/work-items/{item_id}/logs?follow={str(follow).lower()}"
        timeout = aiohttp.ClientTimeout(total=180, sock_read=60)
        async with self.open("GET", path, headers=headers, timeout=timeout) as response:
            assert response.content_type == "text/event-stream"
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\r\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    yield SseEvent(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))
                    fields = {}

    async def output(self, item_id: UUID) -> str:
        """All that the run has said so far."""

        async def once() -> str:
            events = self.events(item_id, follow=False)
            return "".join([str(event.data["text"]) async for event in events if event.name == "log"])

        return await patiently(once)

    async def begun(self, item_id: UUID, seconds: float = 90) -> None:
        """Until the agent has said something from inside its sandbox."""
        await self.until(item_id, {"running"}, seconds)
        async with asyncio.timeout(seconds):
            async for event in self.events(item_id):
                if event.name == "log":
                    return

    # --- Deciding ---------------------------------------------------------------------------------------------------

    async def approvals(self) -> list[ApprovalContext]:
        page = await self.call("GET", "/v1/approvals?limit=200")
        return [ApprovalContext.model_validate(each) for each in page["items"]]

    async def approval_of(self, item_id: UUID, seconds: float = 30) -> ApprovalContext:
        """The open approval of an item, once this user sees it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [each for each in await patiently(self.approvals) if each.work_item_id == item_id]
            if found:
                return found[0]
            await asyncio.sleep(PAUSE_SECONDS)
        raise AssertionError(f"{self.name} sees no approval for {item_id} in {seconds:.0f} s")

    async def decide(
        self, approval: ApprovalContext, verdict: str = "approve", reason: str = "checked", **more: Any
    ) -> DecisionAnswer:
        body = {"verdict": verdict, "reason": reason, "digest": approval.subject_digest, **more}
        return DecisionAnswer.model_validate(await self.call("POST", f"/v1/approvals/{approval.id}/decision", body))

    # --- The rest ---------------------------------------------------------------------------------------------------

    async def assistant(self, body: Json) -> AssistantAnswer:
        """Make an assistant, or find the one of that slug."""
        try:
            return AssistantAnswer.model_validate(await self.call("POST", "/v1/assistants", body))
        except ProblemError as error:
            if error.status != 409:
                raise
        page = cast("Json", await self.call("GET", "/v1/assistants?limit=200"))
        found = [AssistantAnswer.model_validate(each) for each in page["items"]]
        return next(each for each in found if each.slug == body["slug"])

    async def halt(self, scope: str, **more: Any) -> HaltState:
        return HaltState.model_validate(await self.call("POST", "/v1/halts", {"scope": scope, **more}))

    async def lift(self, scope: str, **more: Any) -> HaltState:
        return HaltState.model_validate(await self.call("POST", "/v1/halts/lift", {"scope": scope, **more}))

    async def set_budget(self, scope: str, window: str, limit: str, **more: Any) -> BudgetAnswer:
        body = {"scope": scope, "window": window, "limit": limit, **more}
        return BudgetAnswer.model_validate(await self.call("PUT", "/v1/budgets", body))

    async def verify(self) -> ChainReport:
        return ChainReport.model_validate(await self.call("GET", "/v1/audit/verify"))


async def patiently(once: Callable[[], Awaitable[T]], seconds: float = 60) -> T:
    """Repeat what may be repeated while the API says that it, or what it stands on, is away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await once()
        except ProblemError as error:
            if error.status != 503 or time.monotonic() > deadline:
                raise
        except AWAY:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
