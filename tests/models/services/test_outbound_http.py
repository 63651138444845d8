"""Sending a connector's request: where it may go by address, what is known after it, and what is kept of it."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from aiohttp import web
from pydantic import ValidationError

from models.domain.action import HttpEffect
from models.domain.connector import HttpConnector
from models.domain.effect import Answer, Outcome
from models.domain.errors import WarrantRefused
from models.services.effect_requests import build
from models.services.outbound_http import HttpSender
from tests.fixtures.receiver import Receiver, serving

ACTION = UUID(int=7)
SECRET = "sk-live/0123456789+abcdef="


class Names:
    """A resolver that answers as it is told, each time the next; and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise socket.gaierror("there is no such name")
        return found


def config(receiver: Receiver, **more: Any) -> HttpConnector:
    given: dict[str, Any] = {
        "base_url": receiver.url,
        "methods": ["GET", "POST", "PUT", "DELETE"],
        "allow_private": True,
        "timeout_seconds": 5,
        "credential": {"secret": "key", "as": "bearer"},
        **more,
    }
    return HttpConnector.model_validate_json(json.dumps({name: one for name, one in given.items() if one is not None}))


async def send(connector: HttpConnector, sender: HttpSender | None = None, **effect: Any) -> Answer:
    asked = HttpEffect.model_validate({"connector": "hooks", "path": "/pay", "json": {"sum": 12, "a": 1}, **effect})
    request = build(connector, asked, ACTION, {"key": SECRET, "other": "an-unused-secret"})
    return await (sender or HttpSender(allow_private=True)).send(connector, request)


async def test_the_bytes_that_were_approved_are_sent_with_the_credential(receiver: Receiver) -> None:
    answer = await send(config(receiver, idempotency_header="Idempotency-Key"), query={"a b": "c&d"})
    assert answer.outcome is Outcome.PERFORMED
    assert answer.result == {"status": 200, "content_type": "application/json; charset=utf-8", "json": {"ok": True}}
    (seen,) = receiver.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/pay?a%20b=c%26d", b'{"a":1,"sum":12}')
    assert seen.headers["Authorization"] == f"Bearer {SECRET}"
    assert seen.headers["Idempotency-Key"] == str(ACTION)
    assert seen.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("credential", "header", "value"),
    [
        ({"secret": "key", "as": "header", "header_name": "X-Api-Key"}, "X-Api-Key", SECRET),
        ({"secret": "key", "as": "basic"}, "Authorization", f"Basic {base64.b64encode(SECRET.encode()).decode()}"),
    ],
)
async def test_a_credential_is_shown_as_it_is_said(
    receiver: Receiver, credential: dict[str, str], header: str, value: str
) -> None:
    await send(config(receiver, credential=credential))
    assert receiver.seen[0].headers[header] == value


async def test_a_secret_that_is_gone_is_refused_before_anything_is_sent(receiver: Receiver) -> None:
    asked = HttpEffect(connector="hooks", path="/pay")
    with pytest.raises(WarrantRefused, match="the secret key is gone"):
        build(config(receiver), asked, ACTION, {"other": "an-unused-secret"})


@pytest.mark.parametrize(
    ("method", "status", "outcome"),
    [
        ("POST", 200, Outcome.PERFORMED), ("POST", 204, Outcome.PERFORMED), ("POST", 400, Outcome.FAILED),
        ("POST", 404, Outcome.FAILED), ("POST", 409, Outcome.FAILED), ("POST", 500, Outcome.UNKNOWN),
        ("POST", 502, Outcome.UNKNOWN), ("POST", 302, Outcome.UNKNOWN), ("POST", 307, Outcome.FAILED),
        ("GET", 302, Outcome.FAILED), ("GET", 304, Outcome.FAILED), ("GET", 503, Outcome.UNKNOWN),
    ],
)  # fmt: skip
async def test_a_status_says_what_came_of_it(receiver: Receiver, method: str, status: int, outcome: Outcome) -> None:
    receiver.says("/pay", status)
    assert (await send(config(receiver), method=method)).outcome is outcome


@pytest.mark.parametrize("name", ["x-api-KEY", "Content-Type", "Authorization"])
def test_the_key_has_a_header_of_its_own(receiver: Receiver, name: str) -> None:
    with pytest.raises(ValidationError, match="another meaning"):
        config(
            receiver,
            idempotency_header=name,
            credential={"secret": "key", "as": "header", "header_name": "X-Api-Key"},
        )


@pytest.mark.parametrize("status", [408, 409, 425, 429])
async def test_a_repeat_that_comes_too_early_is_no_failure(receiver: Receiver, status: int) -> None:
    receiver.says("/pay", status)
    keyed = config(receiver, idempotency_header="Idempotency-Key")
    assert (await send(keyed)).outcome is Outcome.UNKNOWN
    assert (await send(keyed, method="GET", json=None)).outcome is Outcome.FAILED
    assert (await send(config(receiver))).outcome is Outcome.FAILED


# --- Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["100.64.0.1"], ["::1"], ["fe80::1"], ["fd00:ec2::254"],
        ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["0.0.0.0"], ["224.0.0.1"],
        # One bad one among good ones is enough.
        ["93.184.216.34", "127.0.0.1"], ["2606:4700::1111", "::1"],
    ],
)  # fmt: skip
async def test_a_name_that_leads_inside_is_refused_and_nothing_is_sent(addresses: list[str]) -> None:
    connector = HttpConnector(hosts=("api.example.com",), timeout_seconds=5)
    answer = await send(connector, HttpSender(Names(addresses)), path=None, url="https://api.example.com/")
    assert answer.outcome is Outcome.NOT_ALLOWED
    assert answer.record["sent"] is False


@pytest.mark.parametrize("installation", [True, False])
@pytest.mark.parametrize("connector_says", [True, False])
async def test_private_addresses_take_the_connectors_word_and_the_installations(
    receiver: Receiver, *, installation: bool, connector_says: bool
) -> None:
    connector = config(receiver).model_copy(update={"allow_private": connector_says})
    sender = HttpSender(allow_private=installation)
    asked = HttpEffect(connector="hooks", path="/pay")
    request = build(config(receiver), asked, ACTION, {"key": SECRET})
    answer = await sender.send(connector, request)
    allowed = installation and connector_says
    assert answer.outcome is (Outcome.PERFORMED if allowed else Outcome.NOT_ALLOWED)
    assert len(receiver.seen) == int(allowed)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "0.0.0.0", "[::ffff:169.254.169.254]"])
async def test_metadata_is_never_reached_whatever_is_allowed(host: str) -> None:
    names = Names([host.strip("[]")])
    connector = HttpConnector(hosts=("metadata.example.com",), allow_private=True, timeout_seconds=5)
    sender = HttpSender(names, allow_private=True)
    answer = await send(connector, sender, path=None, url="http://metadata.example.com/latest")
    assert answer.outcome is Outcome.NOT_ALLOWED


async def test_a_name_that_changes_its_mind_changes_nothing(receiver: Receiver) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    names = Names(["127.0.0.2"], ["127.0.0.1"])  # nobody listens on the first
    connector = config(receiver, base_url=f"http://api.example.com:{receiver.port}")
    answer = await send(connector, HttpSender(names, allow_private=True))
    assert answer.outcome is Outcome.NOT_SENT
    assert names.asked == ["api.example.com"]
    assert receiver.seen == []


# --- Redirects -------------------------------------------------------------------------------------------------------


async def test_a_redirect_inside_the_list_is_followed_and_the_content_is_not_repeated(receiver: Receiver) -> None:
    receiver.says("/pay", 303, Location="/done")
    answer = await send(config(receiver, idempotency_header="Idempotency-Key"))
    assert answer.outcome is Outcome.PERFORMED
    assert [(one.method, one.path, one.body) for one in receiver.seen][1] == ("GET", "/done", b"")
    assert "Idempotency-Key" not in receiver.seen[1].headers
    assert receiver.seen[1].headers["Authorization"] == f"Bearer {SECRET}"


async def test_a_credential_never_goes_to_another_host(receiver: Receiver) -> None:
    async with serving() as other:
        receiver.says("/pay", 307, Location=f"{other.url}/pay")
        answer = await send(config(receiver, hosts=[f"127.0.0.1:{other.port}"]))
        assert answer.outcome is Outcome.PERFORMED
        (seen,) = other.seen
    assert seen.method == "POST"
    assert "Authorization" not in seen.headers
    assert SECRET not in json.dumps(seen.headers)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:9/elsewhere", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd",
        "gopher://127.0.0.1/", "//evil.example/x", "http://[::1]/", "https://user:pass@api.example.com/",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("status", "outcome"), [(307, Outcome.FAILED), (302, Outcome.UNKNOWN)])
async def test_a_redirect_off_the_list_is_not_followed(
    receiver: Receiver, location: str, status: int, outcome: Outcome
) -> None:
    receiver.says("/pay", status, Location=location)
    assert (await send(config(receiver))).outcome is outcome
    assert len(receiver.seen) == 1


async def test_a_redirect_to_a_listed_name_that_leads_inside_is_refused(receiver: Receiver) -> None:
    receiver.says("/pay", 307, Location="http://inside.example.com/pay")
    names = Names(["169.254.169.254"])
    connector = config(receiver, hosts=["inside.example.com"])
    answer = await send(connector, HttpSender(names, allow_private=True))
    assert answer.outcome is Outcome.UNKNOWN, "the first hop was sent"
    assert names.asked == ["inside.example.com"]


async def test_redirects_have_an_end(receiver: Receiver) -> None:
    receiver.says("/pay", 307, Location="/pay")
    answer = await send(config(receiver))
    assert answer.outcome is Outcome.UNKNOWN
    assert len(receiver.seen) == 4


# --- Time, size, secrets ---------------------------------------------------------------------------------------------


async def test_no_answer_is_not_known_and_no_connection_is_not_sent(receiver: Receiver) -> None:
    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    receiver.answers["/pay"] = never
    assert (await send(config(receiver, timeout_seconds=1))).outcome is Outcome.UNKNOWN
    gone = config(receiver, base_url=f"http://127.0.0.1:{_closed_port()}")
    assert (await send(gone)).outcome is Outcome.NOT_SENT
    no_name = config(receiver, base_url=f"http://nobody.example.com:{receiver.port}")
    assert (await send(no_name, HttpSender(Names([]), allow_private=True))).outcome is Outcome.NOT_SENT


def _closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_a_connection_that_breaks_off_is_not_known(receiver: Receiver) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    receiver.answers["/pay"] = breaks
    assert (await send(config(receiver))).outcome is Outcome.UNKNOWN


async def test_an_answer_is_read_up_to_its_limit(receiver: Receiver) -> None:
    async def long(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 5_000_000, content_type="text/plain")

    receiver.answers["/pay"] = long
    answer = await send(config(receiver, most_response_bytes=200_000))
    assert answer.outcome is Outcome.PERFORMED
    assert answer.record["body_bytes"] == 200_000
    assert (len(answer.record["body"]), answer.record["whole"]) == (16 * 1024, False)
    assert (len(answer.result["text"]), answer.result["cut"]) == (48 * 1024, True)
    assert len(json.dumps(answer.result)) < 64 * 1024


async def test_an_endless_answer_ends_with_its_time(receiver: Receiver) -> None:
    async def drips(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with_end = asyncio.Event()
        while not with_end.is_set():
            await response.write(b"x")
            await asyncio.sleep(0.01)
        return response

    receiver.answers["/pay"] = drips
    answer = await send(config(receiver, timeout_seconds=1))
    assert answer.outcome is Outcome.UNKNOWN


async def test_secrets_are_hidden_in_whatever_is_kept(receiver: Receiver) -> None:
    async def echoes(request: web.Request) -> web.StreamResponse:
        shown = request.headers["Authorization"].removeprefix("Bearer ")
        said = {
            "plain": f"you are {shown}!",
            "base64": base64.b64encode(f"x:{shown}".encode()).decode(),
            "quoted": quote(shown, safe=""),
            "other": "an-unused-secret",
        }
        return web.json_response(said, headers={"X-Echo": shown, "Set-Cookie": f"a={shown}"})

    receiver.answers["/pay"] = echoes
    connector = config(receiver)
    asked = HttpEffect.model_validate({"connector": "hooks", "path": "/pay", "json": {"note": f"with {SECRET} in it"}})
    request = build(connector, asked, ACTION, {"key": SECRET, "other": "an-unused-secret"})
    answer = await HttpSender(allow_private=True).send(connector, request)
    kept = json.dumps([request.record(), answer.record, answer.result, answer.words, repr(request)])
    for form in (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode()[:-2], "an-unused-secret"):
        assert form not in kept
    assert answer.result["json"]["plain"] == "you are [redacted]!"
    assert request.record()["headers"]["Authorization"] == "[redacted]"
    assert receiver.seen[0].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "written",
    [SECRET.replace("/", "\\/"), "".join(f"\\u{ord(letter):04x}" for letter in SECRET)],
    ids=["the slash escaped", "every letter escaped"],
)
async def test_a_secret_that_json_writes_in_escapes_is_hidden_once_it_is_read(receiver: Receiver, written: str) -> None:
    async def echoes(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=f'{{"{written}": ["you are {written}!"]}}', content_type="application/json")

    receiver.answers["/pay"] = echoes
    answer = await send(config(receiver))
    assert answer.result["json"] == {"[redacted]": ["you are [redacted]!"]}
    assert SECRET.replace("/", "\\/") not in answer.record["body"]


async def test_an_answer_that_is_no_plain_json_is_text(receiver: Receiver) -> None:
    async def odd(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b'{"n": 99999999999999999999, "z": "\\u0000"}\0\xff', content_type="application/json")

    receiver.answers["/pay"] = odd
    answer = await send(config(receiver))
    assert answer.result["text"].startswith('{"n": 9999')
    assert "\0" not in json.dumps(answer.record, ensure_ascii=False)
