"""What agents ask of us by HTTP and by MCP alike: asked in a transaction, told to who watches, waited for."""

from __future__ import annotations

from uuid import UUID

from api.deps import Deps
from api.waiting import Gone, until
from models.domain.action import ActionMode, ActionRequest, AgentCaller
from models.domain.action_views import ActionAnswer
from models.services import actions, agent_work, events, questions
from models.services.agent_work import Progress
from models.services.questions import QuestionView

WAIT_SECONDS = 25.0
"""How long a request in mode `wait` is held open before it is told to come again: less than a proxy bears."""


def base_of(caller: AgentCaller) -> str:
    """Where the agent finds its actions: below `AWGP_URL` inside, below the API's address elsewhere."""
    return "/actions" if caller.is_run else "/v1/actions"


async def ask_and_wait(gone: Gone, given: Deps, caller: AgentCaller, asked: ActionRequest, key: str) -> ActionAnswer:
    """Ask, tell who watches, and in mode `wait` hold the answer back while nothing has come of it."""
    async with given.db.tenant_session(caller.tenant_id) as session:
        answer = await actions.request_action(session, caller, asked, key)
    if caller.work_item_id is not None:
        await events.ring(given.cache, caller.tenant_id, caller.work_item_id)
    if answer.id is None or answer.settled or asked.mode is not ActionMode.WAIT:
        return answer.model_copy(update={"wait_url": _url(caller, answer)})
    return await wait_for(gone, given, caller, answer.id, WAIT_SECONDS)


async def wait_for(gone: Gone, given: Deps, caller: AgentCaller, action_id: UUID, seconds: float) -> ActionAnswer:
    """One of the agent's own actions, once it is settled or the time is over."""

    async def look() -> tuple[ActionAnswer, bool]:
        async with given.db.tenant_session(caller.tenant_id) as session:
            row = await actions.read_own(session, caller, action_id)
        answer = actions.answer_of(row, base_of(caller))
        return answer, answer.settled

    return await until(gone, given, caller.tenant_id, f"action:{action_id}", seconds, look)


async def tell_progress(given: Deps, caller: AgentCaller, said: Progress) -> None:
    """Write the agent's word into the timeline, and wake who watches it."""
    async with given.db.tenant_session(caller.tenant_id) as session:
        await agent_work.report_progress(session, caller, said)
    if caller.work_item_id is not None:
        await events.ring(given.cache, caller.tenant_id, caller.work_item_id)


async def put_question(given: Deps, caller: AgentCaller, new: questions.NewQuestion, key: str) -> QuestionView:
    """Write the question, and wake who watches the item."""
    async with given.db.tenant_session(caller.tenant_id) as session:
        found = await questions.ask(session, caller, new, key)
    await events.ring(given.cache, caller.tenant_id, found.work_item_id)
    return found


def _url(caller: AgentCaller, answer: ActionAnswer) -> str | None:
    return f"{base_of(caller)}/{answer.id}?wait=25" if answer.id is not None else None
