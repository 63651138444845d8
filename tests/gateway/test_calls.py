from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import pytest
import redis

from models.settings import Settings
from models.storage.db import Database
from tests.fixtures.companies import Company
from tests.fixtures.model_calls import CARD, GRANT, LiveModelRun, ledger
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.runs import SIGNER, outlive_lease, tamper
from tests.fixtures.valkey import ValkeyServer
from tests.gateway.conftest import (
    COST,
    DONE,
    LAST,
    USAGE,
    Upstream,
    World,
    completion,
    event,
    eventually,
    plain,
    stream,
    words,
    world_of,
)
from workers.gateway import build


async def settled(world: World, acme: Company, calls: int = 1) -> list[Any]:
    """The ledger's rows, once there are so many."""

    async def rows() -> list[Any] | None:
        found = await ledger(world.db, acme, world.run.item.id)
        return found if len(found) >= calls else None

    return await eventually(rows)


async def nothing_held(world: World) -> dict[str, int]:
    async def standing() -> dict[str, int] | None:
        found = await world.standing()
        return None if found["held"] else found

    return await eventually(standing)


async def test_a_plain_call_passes_and_is_charged(world: World, acme: Company) -> None:
    world.upstream.plays = plain(body=completion(extra={"un": "known"}))
    status, answer, headers = await world.call(unknown_field={"deep": [1, "ä€"]}, temperature=0.5)
    assert (status, answer) == (200, completion(extra={"un": "known"}))
    assert headers["x-provider"] == "p"
    assert headers["x-awgp-cost-nano"] == str(COST)
    [heard] = world.upstream.heard
    assert heard.body["unknown_field"] == {"deep": [1, "ä€"]}
    assert heard.headers["authorization"] == "Bearer the-providers-key"
    assert await world.standing() == {"limit": GRANT, "charged": COST, "held": 0, "closed": 0}
    [row] = await settled(world, acme)
    assert (str(row.call_id), row.amount_nano, row.kind) == (headers["x-awgp-call-id"], COST, "final")
    assert (row.tokens["prompt"], row.tokens["completion"], row.upstream_id) == (10, 5, "gen-1")
    assert row.prices["output"] == CARD.output


async def test_the_callers_bytes_go_up_as_they_came(world: World) -> None:
    raw = b'{ "model":"scripted/small" ,"max_tokens": 5, "messages":[{"role":"user","content":"\\u00e4 "}]}\n'
    headers = {"Authorization": f"Bearer {world.run.token}", "X-Awgp-Forged": "1", "Cookie": "a=b", "X-Mine": "2"}
    async with world.client.post(f"{world.url}/llm/v1/chat/completions", data=raw, headers=headers) as answer:
        assert answer.status == 200
    [heard] = world.upstream.heard
    assert heard.raw == raw
    assert heard.headers["x-mine"] == "2"
    assert not {"x-awgp-forged", "cookie"} & heard.headers.keys()


async def test_what_the_upstream_says_it_costs_is_what_it_costs(world: World) -> None:
    world.upstream.plays = plain(body=completion({**USAGE, "cost": 0.000001234}))
    _, _, headers = await world.call()
    assert headers["x-awgp-cost-nano"] == "1234"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_the_upstreams_errors_are_its_own_and_free(world: World, status: int) -> None:
    world.upstream.plays = plain(status, {"error": {"message": "mine"}}, {"retry-after": "7"})
    found, answer, headers = await world.call()
    assert (found, answer) == (status, {"error": {"message": "mine"}})
    assert headers["retry-after"] == "7"
    assert "x-awgp-refused" not in headers
    assert (await world.standing())["charged"] == 0


async def test_a_cap_is_put_in_where_there_is_none(world: World) -> None:
    await world.call(max_tokens=...)
    await world.call(max_tokens=None)
    assert [heard.body["max_tokens"] for heard in world.upstream.heard] == [1000, 1000]


async def test_a_cap_is_what_is_left_where_that_is_less(world: World) -> None:
    await world.call()
    tamper_limit = GRANT - 2_000_000
    with redis.Redis.from_url(world.money._url) as client:
        client.hincrby(f"money:{{{world.run.claims.reservation}}}", "charged", tamper_limit)
    status, _, _ = await world.call(max_tokens=...)
    assert status == 200
    cap = world.upstream.heard[-1].body["max_tokens"]
    assert 16 <= cap < 1000


async def test_a_stream_passes_as_it_comes_without_what_we_asked_for(world: World, acme: Company) -> None:
    go_on = asyncio.Event()
    pieces = [b": comment\n\n", *words("one", "two")]
    world.upstream.plays = stream(*pieces[:2], go_on, pieces[2][:9], pieces[2][9:], LAST, DONE)
    async with world.request(stream=True) as answer:
        got = b""
        while len(got) < len(b"".join(pieces[:2])):
            got += await answer.content.readany()
        go_on.set()
        got += await answer.content.read()
        assert answer.headers["content-type"] == "text/event-stream"
    assert got == b"".join(pieces) + DONE
    assert world.upstream.heard[0].body["stream_options"] == {"include_usage": True}
    assert (await world.standing())["charged"] == COST
    [row] = await settled(world, acme)
    assert (row.streamed, row.amount_nano, row.kind) == (True, COST, "final")


async def test_usage_that_was_asked_for_is_passed_on(world: World) -> None:
    world.upstream.plays = stream(*words("one"), LAST, DONE)
    _, got, _ = await world.call(stream=True, stream_options={"include_usage": True})
    assert got == b"".join([*words("one"), LAST, DONE])
    await world.call(stream=True, stream_options={"other": 1})
    assert world.upstream.heard[-1].body["stream_options"] == {"other": 1, "include_usage": True}


async def test_usage_beside_words_stays_with_them(world: World) -> None:
    last = event(choices=[{"index": 0, "delta": {"content": "end"}}], usage=USAGE)
    world.upstream.plays = stream(event(choices=[], usage=None), last, DONE)
    _, got, _ = await world.call(stream=True)
    assert got == event(choices=[], usage=None) + last + DONE
    assert (await world.standing())["charged"] == COST


async def test_a_model_that_speaks_of_the_end_has_not_ended(world: World, acme: Company) -> None:
    world.upstream.plays = stream(*words("a stream ends with data: [DONE]", "so it is"), LAST, DONE)
    await world.call(stream=True)
    [row] = await settled(world, acme)
    assert (row.amount_nano, row.kind) == (COST, "final")


async def test_a_cut_stream_is_charged_for_what_was_produced(world: World, acme: Company) -> None:
    world.upstream.plays = stream(*words("one", "two three four"), cut=True)
    _, got, _ = await world.call(stream=True)
    assert b"upstream_cut" in got
    [row] = await settled(world, acme)
    assert row.kind == "estimated"
    assert 0 < row.amount_nano < row.held_nano
    assert await nothing_held(world) == {"limit": GRANT, "charged": row.amount_nano, "held": 0, "closed": 0}


@pytest.mark.parametrize("how", ["plain", "stream", "cut"])
async def test_usage_that_never_comes_costs_what_was_held(world: World, acme: Company, how: str) -> None:
    async def hang_up(_heard: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        raise ConnectionResetError

    plays = {"plain": plain(body=completion(None)), "stream": stream(*words("one"), DONE)}
    world.upstream.plays = plays.get(how, hang_up)
    _, _, headers = await world.call(stream=how == "stream")
    assert headers.get("x-should-retry") == ("false" if how == "cut" else None), "it is charged: not again unasked"
    [row] = await settled(world, acme)
    assert (row.kind, row.amount_nano) == ("estimated", row.held_nano)


async def test_a_caller_that_leaves_is_charged_for_what_came(world: World, acme: Company) -> None:
    go_on = asyncio.Event()
    world.upstream.plays = stream(*words("one"), go_on, *words("two"), LAST, DONE)
    async with world.request(stream=True) as answer:
        await answer.content.readany()
        answer.close()
    go_on.set()
    [row] = await settled(world, acme)
    assert (row.kind, row.amount_nano) == ("final", COST)


async def test_a_caller_that_leaves_is_not_waited_for_for_ever(
    world: World, acme: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gateway.calls.DRAIN_SECONDS", 0.05)
    world.upstream.plays = stream(*words("one"), asyncio.Event(), LAST, DONE)
    async with world.request(stream=True) as answer:
        await answer.content.readany()
        answer.close()
    [row] = await settled(world, acme)
    assert (row.kind, row.detail) == ("estimated", "its caller had left")


async def test_a_caller_that_reads_nothing_is_let_go_of(
    world: World, acme: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.gateway.calls.TOTAL_SECONDS", 0.2)
    # No time at all for the rest: who begins to read once the call is settled would still be in time for it.
    monkeypatch.setattr("api.gateway.calls.DRAIN_SECONDS", 0.0)
    world.upstream.plays = stream(*words(*["x" * 1_000_000] * 40), asyncio.Event())
    async with asyncio.timeout(60), world.request(stream=True) as answer:
        [row] = await settled(world, acme)
        assert row.kind == "estimated"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()


async def test_an_upstream_that_is_not_there_costs_nothing(
    db: Database, valkey: ValkeyServer, upstream: Upstream, run: LiveModelRun, gateway_settings: Settings
) -> None:
    settings = gateway_settings.model_copy(update={"llm_upstream_url": "http://127.0.0.1:1/v1"})
    async with world_of(build(settings), db, valkey, upstream, run) as world:
        status, answer, headers = await world.call()
        assert (status, headers["x-awgp-refused"]) == (502, "upstream_unreachable")
        assert "nothing is charged" in answer["error"]["message"]
        assert await nothing_held(world) == {"limit": GRANT, "charged": 0, "held": 0, "closed": 0}


async def test_what_does_not_fit_is_refused_and_told_what_would(world: World) -> None:
    status, answer, headers = await world.call(model="scripted/large", max_tokens=5000)
    assert (status, headers["content-type"], headers["x-awgp-refused"]) == (
        402, "application/problem+json", "budget_short",
    )  # fmt: skip
    assert {name: answer[name] for name in ("scope", "limit", "spent", "held", "reset")} == {
        "scope": "work_item", "limit": str(GRANT), "spent": "0", "held": "0", "reset": None,
    }  # fmt: skip
    assert int(answer["needed"]) > GRANT
    assert answer["fits"]["models"] == ["scripted/free", "scripted/small"]
    assert answer["error"]["type"] == "insufficient_quota"
    fitting = answer["fits"]["max_tokens"]
    assert f"max_tokens ≤ {fitting}" in answer["error"]["message"]
    assert (await world.call(model="scripted/large", max_tokens=fitting + 10))[0] == 402
    assert (await world.call(model="scripted/large", max_tokens=fitting))[0] == 200
    assert len(world.upstream.heard) == 1


async def test_models_that_may_not_be_called(world: World) -> None:
    status, answer, _ = await world.call(model="other/one")
    assert (status, answer["error"]["code"]) == (403, "model")
    status, answer, _ = await world.call(model="unpriced/one")
    assert (status, answer["error"]["code"]) == (402, "llm-model-unpriced")
    status, answer, _ = await world.call(models=["unpriced/one"])
    assert status == 402
    assert world.upstream.heard == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"model": 5}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": "two"}, "n"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"service_tier": "priority"}, "service_tier"),
    ],
)
async def test_what_no_hold_can_be_made_for(world: World, body: dict[str, Any], where: str) -> None:
    status, answer, _ = await world.call(**body)
    assert (status, answer["error"]["param"]) == (422, where)
    assert world.upstream.heard == []


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"model": "scripted/small"', b"[" * 100_000])
async def test_bodies_that_are_none(world: World, raw: bytes) -> None:
    headers = {"Authorization": f"Bearer {world.run.token}"}
    async with world.client.post(f"{world.url}/llm/v1/chat/completions", data=raw, headers=headers) as answer:
        assert answer.status == 422


@pytest.mark.parametrize(
    "twice",
    [
        b'"max_tokens": 1000000, "max_tokens": 5',
        b'"model": "scripted/large", "max_tokens": 5',
        b'"max_tokens": 5, "tools": [{"type": "web_search", "type": "function"}]',
    ],
)
async def test_a_name_that_stands_twice_is_read_by_nobody(world: World, twice: bytes) -> None:
    raw = b'{%b, "model": "scripted/small", "messages": [{"role": "user", "content": "hi"}]}' % twice
    headers = {"Authorization": f"Bearer {world.run.token}"}
    async with world.client.post(f"{world.url}/llm/v1/chat/completions", data=raw, headers=headers) as answer:
        assert answer.status == 422
        assert "twice" in (await answer.json(content_type=None))["detail"]
    assert world.upstream.heard == []


async def test_a_body_of_more_than_eight_mebibytes(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.run.token}"}
    for size, status in ((8 * 1024 * 1024 - 200, 200), (8 * 1024 * 1024, 413)):
        text = json.dumps({"model": "scripted/free", "messages": [{"role": "user", "content": "x" * size}]}).encode()
        url = f"{world.url}/llm/v1/chat/completions"
        async with world.client.post(url, data=io.BytesIO(text), headers=headers) as answer:
            assert answer.status == status


async def test_who_may_not_call(world: World, database: TestDatabase) -> None:
    for token in ("nonsense", SIGNER.sign({"aud": "run"})):
        status, answer, headers = await world.call(token=token)
        assert (status, answer["error"]["type"]) == (401, "authentication_error")
        assert "www-authenticate" in headers
    async with world.client.post(f"{world.url}/llm/v1/chat/completions", json={}) as answer:
        assert answer.status == 401
    outlive_lease(database, world.run.ref.run_id, 1)
    status, answer, _ = await world.call()
    assert (status, answer["error"]["code"]) == (403, "lease")
    assert world.upstream.heard == []


@pytest.mark.parametrize(("what", "most"), [("rpm", 1), ("tpm", 1500)])
async def test_calls_and_tokens_of_a_minute(world: World, database: TestDatabase, what: str, most: int) -> None:
    tamper(database, "update work_items set spec = jsonb_set(spec, array['llm', %s], to_jsonb(%s::int))", what, most)
    go_on = asyncio.Event()
    world.upstream.plays = stream(go_on, LAST, DONE)
    async with world.request(stream=True):
        status, answer, headers = await world.call()
        assert (status, answer["error"]["code"], answer["limit"]) == (429, what, most)
        assert 1 <= int(headers["retry-after"]) == answer["reset_seconds"] <= 60
        assert headers["x-awgp-refused"] == what
        go_on.set()


async def test_the_models_that_it_may_call_with_their_prices(world: World) -> None:
    headers = {"Authorization": f"Bearer {world.run.token}"}
    async with world.client.get(f"{world.url}/llm/v1/models", headers=headers) as answer:
        listed = (await answer.json())["data"]
    assert [model["id"] for model in listed] == ["scripted/free", "scripted/large", "scripted/small"]
    assert listed[2]["pricing"] == {
        "prompt": "0.000001", "completion": "0.000002", "image": "0", "request": "0",
    }  # fmt: skip
    for name, status in (("scripted/small", 200), ("other/one", 404), ("unpriced/one", 404)):
        async with world.client.get(f"{world.url}/llm/v1/models/{name}", headers=headers) as answer:
            assert answer.status == status
    async with world.client.get(f"{world.url}/llm/v1/models") as answer:
        assert answer.status == 401


async def test_routes_that_are_not_there(world: World) -> None:
    for method, path in (("GET", "/llm/v1/chat/completions"), ("POST", "/llm/v1/embeddings"), ("GET", "/metrics")):
        async with world.client.request(method, f"{world.url}{path}") as answer:
            assert (answer.status, answer.content_type) == (404, "application/problem+json")
    async with world.client.get(f"{world.url}/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ready", "away": {}})


async def test_a_hundred_at_once_on_a_grant_for_twenty(world: World, acme: Company) -> None:
    _, probe, _ = await world.call(max_tokens=10**6)
    worst = int(probe["needed"]) - (10**6 - 50) * 2000 - 5 * 1000  # the same body with a cap of two digits
    with redis.Redis.from_url(world.money._url) as client:
        client.hset(f"money:{{{world.run.claims.reservation}}}", "limit", worst * 20)
    world.upstream.plays = plain(body=completion({**USAGE, "cost": worst / 10**9}))
    found = await asyncio.gather(*(world.call() for _ in range(100)))
    assert sorted({status for status, _, _ in found}) == [200, 402]
    assert sum(status == 200 for status, _, _ in found) == 20 == len(world.upstream.heard)
    assert (await world.standing())["charged"] == worst * 20
    assert sum(row.amount_nano for row in await settled(world, acme, 20)) == worst * 20


def test_numbers_of_this_file_are_as_the_card_says() -> None:
    assert CARD.input * 10 // 10**6 + CARD.output * 5 // 10**6 == COST
