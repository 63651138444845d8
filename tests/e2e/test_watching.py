"""A run's output as server-sent events: as it comes, resumable anywhere, whole."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.e2e import work
from tests.e2e.client import ProblemError, SseEvent, User

pytestmark = [pytest.mark.stack, pytest.mark.docker, pytest.mark.timeout(300)]


async def some(user: User, item_id: UUID, most: int, after: str = "") -> list[SseEvent]:
    """At most so many events; then the connection is dropped in the middle."""
    found: list[SseEvent] = []
    events = user.events(item_id, after=after)
    try:
        async for event in events:
            found.append(event)
            if len(found) == most or event.name == "end":
                break
    finally:
        await events.aclose()
    return found


async def test_output_is_followed_and_resumed_without_loss_or_repetition(alice: User) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 4}))
    seen: list[SseEvent] = []
    connections = 0
    while not seen or seen[-1].name != "end":
        after = seen[-1].id if seen else ""
        seen += await some(alice, asked.id, 3, after)
        connections += 1
        assert connections < 60
    assert connections > 2
    assert seen[-1].data["status"] == "succeeded"
    logs = [event for event in seen if event.name == "log"]
    text = "".join(event.data["text"] for event in logs)
    assert work.Executions.of(text).whole
    offsets = [event.data["offset"] for event in logs]
    assert offsets == sorted(set(offsets))
    assert {event.data["stream"] for event in logs} == {"stdout"}
    assert await alice.output(asked.id) == text


async def test_every_place_of_a_finished_run_can_be_resumed(alice: User) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 1}))
    await alice.until(asked.id, {"succeeded"}, 60)
    whole = await alice.output(asked.id)
    for offset in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
        rest = await some(alice, asked.id, 10_000, f"1.{offset}")
        assert "".join(event.data["text"] for event in rest if event.name == "log") == whole[offset:]
        assert rest[-1].name == "end"


@pytest.mark.parametrize("nonsense", ["x", "1.-3", "1.2.3", "99999999999999999999.1"])
async def test_an_event_id_that_we_never_gave_is_refused(alice: User, nonsense: str) -> None:
    asked = await alice.submit(work.item(await work.sleeper(alice), parameters={"seconds": 0.25}))
    await alice.until(asked.id, {"succeeded"}, 60)
    with pytest.raises(ProblemError) as refused:
        await some(alice, asked.id, 1, nonsense)
    assert refused.value.status == 422
