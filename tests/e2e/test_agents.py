"""Agents inside the fence, whole: models by the gateway, leave by people, effects outside, waiting, staged sets."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import yaml

from tests.e2e import agents, work
from tests.e2e.agents import KEEPS_KEYS, SECRET, Course, Receiver
from tests.e2e.client import Console, User
from tests.e2e.polling import eventually
from tests.e2e.recount import Recount, expect_well
from workers.stack.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(240)]

_versions = itertools.count(1)


class Globex:
    """A company whose policy these tests may change: what others strike meanwhile is Acme's."""

    def __init__(self, console: Console, receiver: Receiver) -> None:
        self.console, self.receiver = console, receiver
        self.requester, self.approver, self.admin = (console.user(name) for name in ("gina", "georg", "gregor"))

    async def policy(self, **actions: Any) -> None:
        current = await self.admin.call("GET", "/v1/policies/current")
        document = yaml.safe_load(current["source"])
        document["actions"] = {**document["actions"], **actions}
        document["policy"]["version"] = f"agents-{next(_versions)}"
        await self.admin.call("POST", "/v1/policies", {"source": yaml.safe_dump(document)})

    async def ask(self, **parameters: Any) -> UUID:
        slug = await agents.agent(self.requester)
        return (await self.requester.submit(work.item(slug, "L0", "An agent", parameters=parameters))).id

    async def decide(self, item_id: UUID, verdict: str = "approve") -> None:
        await self.approver.decide(await self.approver.approval_of(item_id, 60), verdict)

    async def kinds(self, item_id: UUID) -> list[str]:
        return [event.kind for event in await self.requester.timeline(item_id)]

    async def events(self, item_id: UUID) -> list[dict[str, Any]]:
        page = await self.requester.call("GET", f"/v1/work-items/{item_id}/events?limit=200")
        return list(page["items"])


@pytest.fixture
async def globex(stack: Stack) -> AsyncGenerator[Globex]:
    async with Console(stack) as console, Receiver.listening() as receiver:
        company = Globex(console, receiver)
        await agents.connect(company.admin, receiver)
        yield company


def new_name() -> str:
    return uuid4().hex[:12]


async def test_models_leave_and_an_effect_in_one_timeline(globex: Globex, stack: Stack) -> None:
    name = new_name()
    item_id = await globex.ask(calls=3, actions=[agents.action(KEEPS_KEYS, asks=True, name=name)])
    await globex.decide(item_id)
    item = await globex.requester.ended(item_id)
    assert (item.status.value, globex.receiver.done[name]) == ("succeeded", 1)
    course = Course.of(await globex.requester.output(item_id))
    assert course.words.count("called 200") == 3
    assert course.words[-2:] == ("answered 200 performed", "end")
    events = await globex.events(item_id)
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)
    calls = [event["data"] for event in events if event["kind"] == "llm_call"]
    assert [call["model"] for call in calls] == ["awgp/scripted"] * 3
    assert {"status", "output", "llm_call", "action", "approval", "resource", "run"} <= {one["kind"] for one in events}
    assert SECRET not in str(events)
    assert SECRET not in str(await globex.requester.timeline(item_id))
    costs = await globex.requester.call("GET", f"/v1/work-items/{item_id}/costs")
    assert len(costs["items"]) == 3
    with Recount.of(stack) as recount:
        expect_well(recount, [item_id])


async def test_an_agent_that_waits_is_paused_and_its_time_stands_still(globex: Globex) -> None:
    await globex.policy(while_waiting="pause", grace_seconds=5)
    name = new_name()
    item_id = await globex.ask(actions=[agents.action(KEEPS_KEYS, asks=True, name=name)])

    async def paused() -> bool:
        return "run.paused" in await globex.kinds(item_id)

    await eventually(paused, 60, "the run is paused")
    await globex.decide(item_id)
    item = await globex.requester.ended(item_id)
    assert (item.status.value, globex.receiver.done[name]) == ("succeeded", 1)
    assert "run.resumed" in await globex.kinds(item_id)
    whole = await globex.requester.call("GET", f"/v1/work-items/{item_id}")
    assert whole["result"]["paused_seconds"] > 0


@pytest.mark.parametrize(("verdict", "became"), [("approve", "performed"), ("reject", "denied")])
async def test_a_suspended_agent_goes_on_with_the_decision_and_its_state(
    globex: Globex, verdict: str, became: str
) -> None:
    await globex.policy(while_waiting="suspend", grace_seconds=5)
    name = new_name()
    asked = agents.action(KEEPS_KEYS, asks=True, name=name)
    item_id = await globex.ask(saves="halfway", actions=[asked])

    async def suspended() -> bool:
        return "run.suspended" in await globex.kinds(item_id)

    await eventually(suspended, 60, "the run is suspended")
    assert (await globex.requester.item(item_id)).status.value == "awaiting_action"
    await globex.decide(item_id, verdict)
    item = await globex.requester.ended(item_id)
    assert item.status.value == "succeeded"
    course = Course.of(await globex.requester.output(item_id))
    assert len(course.nonces) == 2, "one execution before, one after"
    assert any(line.startswith("goes on '\"halfway\"'") for line in course.words)
    assert course.words[-2:] == (f"answered 200 {became}", "end")
    assert globex.receiver.done[name] == (1 if became == "performed" else 0)


@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_staged_effects_are_one_question_and_are_committed_in_order(globex: Globex, verdict: str) -> None:
    names = [new_name() for _ in range(3)]
    staged = [agents.action(KEEPS_KEYS, asks=True, name=name, mode="staged") for name in names]
    item_id = await globex.ask(actions=staged)
    approval = await globex.approver.approval_of(item_id, 60)
    assert (approval.subject, len(approval.actions)) == ("action_set", 3)
    assert sum(globex.receiver.requests[name] for name in names) == 0, "nothing leaves before somebody has said yes"
    await globex.decide(item_id, verdict)
    item = await globex.requester.ended(item_id)
    assert item.status.value == ("succeeded" if verdict == "approve" else "failed")
    assert [globex.receiver.done[name] for name in names] == ([1] * 3 if verdict == "approve" else [0] * 3)


async def test_an_agent_elsewhere_is_under_the_same_rules(globex: Globex) -> None:
    slug = await agents.agent(globex.requester)
    assistant = await globex.requester.call("GET", f"/v1/assistants/{slug}")
    made = await globex.requester.call("POST", f"/v1/assistants/{assistant['id']}/keys", {})
    name = new_name()
    url = globex.console.stack.api_url + "/v1/actions"
    headers = {"Authorization": f"Bearer {made['key']}", "Idempotency-Key": name}
    body = agents.action(KEEPS_KEYS, asks=True, name=name, mode="async")
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(url, json=body) as answer:
            asked = await answer.json()
            assert (answer.status, asked["status"]) == (202, "pending"), asked
        await _decide_action(globex.approver, asked["approval_id"])

        async def performed() -> bool:
            async with http.get(f"{url}/{asked['id']}") as answer:
                return (await answer.json())["status"] == "performed"

        await eventually(performed, 60, "the effect is performed")
    assert globex.receiver.done[name] == 1


async def _decide_action(approver: User, approval_id: str) -> None:
    approval = await approver.call("GET", f"/v1/approvals/{approval_id}")
    body = {"verdict": "approve", "reason": "seen", "digest": approval["subject_digest"]}
    await approver.call("POST", f"/v1/approvals/{approval_id}/decision", body)
