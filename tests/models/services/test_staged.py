"""Staged effects on real PostgreSQL: one question about the exact set, committed in order, stopped at the first no."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from activities.signatures import StagedState
from models.domain.approval import Verdict
from models.domain.errors import AwgpError
from models.services import approvals, halt, work_items
from models.services.halt import HaltMode, HaltScope
from models.services.reconciliation import settle_without_workflow
from sandbox.spec import RunOutcome
from tests.fixtures.agents import ask, outbox, request, running
from tests.fixtures.effects import Outside
from tests.fixtures.runs import audited, tamper
from tests.fixtures.work import control
from tests.models.services.test_effects import never

THREE = ("/one", "/two", "/three")


async def statuses(outside: Outside, asked: list[Any]) -> list[str]:
    return [(await outside.action(one.id)).status for one in asked]


def paths(outside: Outside) -> list[str]:
    return [one.path for one in outside.receiver.seen]


async def set_row(outside: Outside) -> tuple[str, str, str]:
    with outside.database.admin() as admin:
        found = admin.execute("select status, level, reason from action_sets").fetchone()
    assert found is not None
    return found  # type: ignore[return-value]


async def test_one_question_about_all_and_then_in_order(outside: Outside) -> None:
    await outside.connector()
    item, asked = await outside.staged(*THREE)
    assert (await outside.finish(item.id)).status == "running", "its effects are to be committed first"
    first = await outside.advance(item.id)
    assert first.state is StagedState.ASKED
    again = await outside.advance(item.id)
    assert (again.approval_id, paths(outside)) == (first.approval_id, [])
    assert len(await outbox(outside.db, outside.company, "start_approval")) == 1
    async with outside.db.session_for(outside.company.approver) as session:
        shown = await approvals.read(session, outside.company.approver, first.approval_id)  # type: ignore[arg-type]
    assert [action.effect["path"] for action in shown.actions if action.effect] == list(THREE)
    assert (shown.subject, shown.level, shown.may_edit) == ("action_set", "L3", False)
    await outside.decide(first.approval_id, digest=shown.subject_digest)
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert paths(outside) == list(THREE)
    assert await statuses(outside, asked) == ["performed"] * 3
    ended = await outside.finish(item.id)
    assert (ended.status, ended.reason) == ("succeeded", "")
    assert (await set_row(outside))[0] == "committed"
    assert len(await audited(outside.db, outside.company, "effect.performed")) == 3


async def test_a_set_of_the_lowest_level_goes_on_by_itself(outside: Outside) -> None:
    await outside.connector(external_effect="none")
    item, caller = await running(outside.db, outside.work, outside.company)
    effect = {"connector": "hooks", "path": "/read", "method": "GET"}
    asked = await ask(outside.db, caller, request("L1", effect=effect, mode="staged"))
    assert caller.run_id is not None
    await outside.end_run(item.id, caller.run_id)
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert await statuses(outside, [asked]) == ["performed"]
    assert (await outside.finish(item.id)).status == "succeeded"
    assert await outbox(outside.db, outside.company, "start_approval") == []


@pytest.mark.parametrize("how", ["reject", "expire"])
async def test_a_no_performs_nothing_and_says_so(outside: Outside, how: str) -> None:
    await outside.connector()
    item, asked = await outside.staged(*THREE)
    first = await outside.advance(item.id)
    assert first.approval_id is not None
    if how == "reject":
        await outside.decide(first.approval_id, Verdict.REJECT, reason="not these")
    else:
        past = "clock_timestamp() - interval '1 s'"
        tamper(outside.database, f"update approvals set expires_at = {past} where id = %s", first.approval_id)
        async with outside.db.tenant_session(outside.company.id) as session:
            await approvals.expire(session, control(outside.company.id), first.approval_id)
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert (await statuses(outside, asked), paths(outside)) == (["discarded"] * 3, [])
    ended = await outside.finish(item.id)
    assert ended.status == "failed"
    assert ("not these" if how == "reject" else "nobody decided") in ended.reason
    assert "0 of 3 staged effects are performed" in ended.reason


@pytest.mark.parametrize("status", [422, 500])
async def test_the_first_failure_stops_the_rest_untouched(outside: Outside, status: int) -> None:
    await outside.connector()
    outside.receiver.says("/two", status)
    item, asked = await outside.staged(*THREE)
    await outside.decide((await outside.advance(item.id)).approval_id)
    found = await outside.commit(item.id)
    if status == 500:
        assert found.state is StagedState.DOUBT, "people say first whether it was done"
        await outside.decide(found.approval_id, Verdict.REJECT, reason="it was not")
        found = await outside.commit(item.id)
    assert found.state is StagedState.DONE
    assert paths(outside) == ["/one", "/two"]
    assert await statuses(outside, asked) == ["performed", "failed" if status == 422 else "unknown", "discarded"]
    ended = await outside.finish(item.id)
    assert ended.status == "failed"
    assert "1 of 3 staged effects are performed" in ended.reason
    assert "1 after it are untouched" in ended.reason


async def test_a_doubtful_one_is_tried_again_and_the_rest_follows(outside: Outside) -> None:
    await outside.connector(timeout_seconds=1)
    outside.receiver.answers["/two"] = never
    item, asked = await outside.staged(*THREE)
    await outside.decide((await outside.advance(item.id)).approval_id)
    found = await outside.commit(item.id)
    assert (found.state, paths(outside)) == (StagedState.DOUBT, ["/one", "/two"])
    assert (await outside.finish(item.id)).ended_at is None
    outside.receiver.says("/two")
    await outside.decide(found.approval_id)
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert paths(outside) == ["/one", "/two", "/two", "/three"]
    assert await statuses(outside, asked) == ["performed"] * 3
    assert (await outside.finish(item.id)).status == "succeeded"


async def test_a_run_that_fails_discards_what_it_staged(outside: Outside) -> None:
    await outside.connector()
    item, caller = await running(outside.db, outside.work, outside.company)
    effect = {"connector": "hooks", "path": "/one", "json": {}}
    asked = await ask(outside.db, caller, request(effect=effect, mode="staged"))
    assert caller.run_id is not None
    await outside.end_run(item.id, caller.run_id, RunOutcome.FAILED_EXIT)
    assert (await outside.advance(item.id)).state is StagedState.DONE
    assert (await outside.finish(item.id)).status == "failed"
    action = await outside.action(asked.id)  # type: ignore[arg-type]
    assert action.status == "discarded"
    assert "the run ended as failed exit" in action.words
    assert paths(outside) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("update actions set parameters = '{}' where position = 2", "not the one that was asked about"),
        ("update actions set position = 3 - position where position < 3", "not the one that was asked about"),
        ("update actions set set_id = null where position = 3", "not the one that was asked about"),
        ("update action_sets set level = 'L0'", "the set's level is not L0"),
        ("update decisions set subject_digest = repeat('a', 64)", "its votes do not approve it"),
        ("update approvals set subject_digest = repeat('a', 64)", "there is none"),
    ],
)
async def test_another_set_than_the_approved_one_is_not_committed(outside: Outside, change: str, why: str) -> None:
    await outside.connector()
    item, asked = await outside.staged(*THREE)
    await outside.decide((await outside.advance(item.id)).approval_id)
    tamper(outside.database, change)
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert paths(outside) == []
    words = " ".join([(await outside.action(one.id)).words for one in asked])  # type: ignore[arg-type]
    assert why in words
    await outside.advance(item.id)
    assert (await outside.finish(item.id)).status == "failed"


async def test_a_set_that_nobody_decided_is_not_committed(outside: Outside) -> None:
    await outside.connector()
    item, _ = await outside.staged(*THREE)
    await outside.advance(item.id)
    tamper(outside.database, "update action_sets set status = 'approved'")
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert paths(outside) == []


async def test_a_later_one_is_not_performed_before_an_earlier_one(outside: Outside) -> None:
    await outside.connector()
    item, asked = await outside.staged(*THREE)
    await outside.decide((await outside.advance(item.id)).approval_id)
    action = await outside.through(asked[1].id)  # type: ignore[arg-type]
    assert action.status == "failed"
    assert "the action before it" in action.words
    assert paths(outside) == []


async def test_a_halt_between_two_effects_holds_the_rest(outside: Outside) -> None:
    await outside.connector()
    item, asked = await outside.staged(*THREE)
    await outside.decide((await outside.advance(item.id)).approval_id)
    first = await outside.advance(item.id)
    await outside.through(first.action_id)  # type: ignore[arg-type]
    admin = outside.company.admin
    scope = {
        "scope": HaltScope.ASSISTANT,
        "tenant_id": outside.company.id,
        "assistant_id": outside.company.assistant_id,
    }
    async with outside.db.session_for(admin) as session:
        await halt.set_halt(session, admin, **scope, mode=HaltMode.HOLD, reason="look")  # type: ignore[arg-type]
    second = await outside.advance(item.id)
    await outside.through(second.action_id)  # type: ignore[arg-type]
    assert await statuses(outside, asked) == ["performed", "staged", "staged"]
    assert paths(outside) == ["/one"]
    async with outside.db.session_for(admin) as session:
        await halt.lift(session, admin, **scope)  # type: ignore[arg-type]
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert paths(outside) == list(THREE)


@pytest.mark.parametrize("when", ["asked", "between"])
async def test_a_cancel_discards_the_rest_and_ends_as_cancelled(outside: Outside, when: str) -> None:
    await outside.connector()
    item, asked = await outside.staged(*THREE)
    first = await outside.advance(item.id)
    if when == "between":
        await outside.decide(first.approval_id)
        await outside.through((await outside.advance(item.id)).action_id)  # type: ignore[arg-type]
    who = outside.company.requester
    async with outside.db.session_for(who) as session:
        await work_items.request_cancel(session, who, item.id, "enough")
    assert (await outside.commit(item.id)).state is StagedState.DONE
    ended = await outside.finish(item.id)
    done = int(when == "between")
    assert (ended.status, ended.reason) == ("cancelled", f"enough; {done} of 3 staged effects are performed")
    assert await statuses(outside, asked) == ["performed"] * done + ["discarded"] * (3 - done)
    assert len(paths(outside)) == done
    with pytest.raises(AwgpError):
        await outside.decide(first.approval_id)


async def test_a_terminated_workflow_commits_nothing_more(outside: Outside) -> None:
    await outside.connector()
    item, asked = await outside.staged(*THREE)
    await outside.decide((await outside.advance(item.id)).approval_id)
    await outside.through((await outside.advance(item.id)).action_id)  # type: ignore[arg-type]
    principal = control(outside.company.id)
    async with outside.db.session_for(principal) as session:
        await settle_without_workflow(session, principal, item.id, "terminated")
    assert await statuses(outside, asked) == ["performed", "discarded", "discarded"]
    ended = await outside.finish(item.id)
    assert ended.status == "failed"
    assert "1 of 3 staged effects are performed" in ended.reason


async def test_a_worker_that_died_in_the_middle_of_a_set_doubles_nothing(outside: Outside) -> None:
    await outside.connector(idempotency_header="Idempotency-Key")
    count = 0

    async def dies_once(_request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return web.json_response({}, status=503 if count == 1 else 200)

    outside.receiver.answers["/two"] = dies_once
    item, asked = await outside.staged(*THREE)
    await outside.decide((await outside.advance(item.id)).approval_id)
    for _ in range(2):  # as after a reset: everything is asked again, under new names
        found = await outside.advance(item.id)
        await outside.through(found.action_id, rounds=1)  # type: ignore[arg-type]
    assert (await outside.commit(item.id)).state is StagedState.DONE
    assert paths(outside) == ["/one", "/two", "/two", "/three"]
    assert len(set(outside.receiver.keys("/two"))) == 1
    assert await statuses(outside, asked) == ["performed"] * 3
