"""What may be asked from inside, and what may be said with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.agent_headers import to_inside, to_outside
from sandbox.agent_problems import AgentRefusedError
from sandbox.agent_routes import AWGP_ROUTES, LLM_ROUTES, match


@pytest.mark.parametrize(
    ("method", "target", "outside"),
    [
        ("POST", "/llm/v1/chat/completions", "/llm/v1/chat/completions"),
        ("GET", "/llm/v1/models", "/llm/v1/models"),
        ("GET", "/llm/v1/models/openai/gpt-4o:free", "/llm/v1/models/openai/gpt-4o:free"),
        ("POST", "/actions", "/v1/agent/actions"),
        ("GET", "/actions?cursor=a1&limit=20", "/v1/agent/actions?cursor=a1&limit=20"),
        ("GET", "/actions/0192-ab?wait=60", "/v1/agent/actions/0192-ab?wait=60"),
        ("POST", "/progress", "/v1/agent/progress"),
        ("POST", "/questions", "/v1/agent/questions"),
        ("GET", "/questions/7", "/v1/agent/questions/7"),
        ("PUT", "/state", "/v1/agent/state"),
        ("GET", "/state", "/v1/agent/state"),
        ("GET", "/context", "/v1/agent/context"),
        ("POST", "/mcp", "/v1/agent/mcp"),
        ("GET", "/mcp", "/v1/agent/mcp"),
        ("DELETE", "/mcp", "/v1/agent/mcp"),
    ],
)
def test_what_is_listed_goes_out_under_its_prefix(method: str, target: str, outside: str) -> None:
    routes = LLM_ROUTES if target.startswith("/llm") else AWGP_ROUTES
    assert match(routes, method, target).outside == outside


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/v1/work-items"),
        ("GET", "/llm/v1/chat/completions"),
        ("POST", "/llm/v1/completions"),
        ("POST", "/llm/v1/embeddings"),
        ("POST", "/llm/v1/chat/completions/"),
        ("POST", "//llm/v1/chat/completions"),
        ("POST", "/llm/v1//chat/completions"),
        ("POST", "/llm/../llm/v1/chat/completions"),
        ("POST", "/llm/v1/%63hat/completions"),
        ("POST", "http://127.0.0.1:4000/llm/v1/chat/completions"),
        ("POST", "http://gateway/llm/v1/chat/completions"),
        ("CONNECT", "gateway:443"),
        ("OPTIONS", "*"),
        ("HEAD", "/llm/v1/models"),
        ("GET", "/llm/v1/models/.."),
        ("GET", "/llm/v1/models/../../v1/tenants"),
        ("GET", "/llm/v1/models/a/../../b"),
        ("GET", "/llm/v1/models/a/./b"),
        ("GET", "/llm/v1/models/%2e%2e/keys"),
        ("GET", "/llm/v1/models/a%2fb"),
        ("GET", "/llm/v1/models/a\\b"),
        ("GET", "/llm/v1/models/a;b"),
        ("GET", "/llm/v1/models/a#b"),
        ("GET", "/llm/v1/models/a/"),
        ("GET", "/llm/v1/models/ä"),
        ("GET", "/llm/v1/models\n"),
    ],
)
def test_nothing_else_is_there(method: str, target: str) -> None:
    with pytest.raises(AgentRefusedError) as refused:
        match(LLM_ROUTES, method, target)
    assert refused.value.status == 404
    assert "POST /llm/v1/chat/completions" in refused.value.detail


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/actions/"),
        ("GET", "/actions/../context"),
        ("GET", "/actions/1/decision"),
        ("POST", "/actions/1/decision"),
        ("PUT", "/actions"),
        ("POST", "/v1/agent/actions"),
        ("GET", "/mcp/x"),
        ("GET", "/artifacts/x"),
        ("PUT", "/artifacts/"),
        ("PUT", "/artifacts/a%2fb"),
        ("PUT", "/artifacts/a%5Cb"),
        ("PUT", "/artifacts/a%00"),
        ("PUT", "/artifacts/a%zz"),
        ("POST", "/llm/v1/chat/completions"),
    ],
)
def test_nothing_else_is_on_the_other_port(method: str, target: str) -> None:
    with pytest.raises(AgentRefusedError) as refused:
        match(AWGP_ROUTES, method, target)
    assert refused.value.status == 404


@pytest.mark.parametrize("query", ["a=%zz#", "x=y z", "a='", "a=<b>", "a=" + "b" * 1100, "a\\b", "wait=1?"])
def test_a_query_is_plain_or_refused(query: str) -> None:
    with pytest.raises(AgentRefusedError) as refused:
        match(AWGP_ROUTES, "GET", "/actions?" + query)
    assert refused.value.status == 400


@given(st.text(max_size=60))
def test_whatever_follows_a_listed_prefix_stays_under_it(rest: str) -> None:
    try:
        matched = match(LLM_ROUTES, "GET", "/llm/v1/models/" + rest)
    except AgentRefusedError:
        return
    segments = matched.path.split("/")
    assert matched.path.startswith("/llm/v1/models/")
    assert not {"", ".", ".."} & set(segments[1:])
    assert all(character.isascii() and character not in "%\\;#?" for character in matched.path)


def test_whatever_says_who_asks_stays_inside() -> None:
    inside = [
        ("Authorization", "Bearer stolen"), ("X-AWGP-Run-Attempt", "9"), ("x-awgp-tenant", "other"),
        ("X_Awgp_Tenant", "other"), ("Cookie", "session=1"), ("Forwarded", "for=1.2.3.4"), ("X-Forwarded-For", "::1"),
        ("X-Forwarded-Host", "evil"), ("OpenAI-Organization", "org"), ("OpenAI-Project", "p"), ("X-Api-Key", "k"),
        ("api-key", "k"), ("Host", "evil"), ("Proxy-Authorization", "Basic x"), ("TE", "trailers"),
        ("Connection", "close, X-Secret"), ("X-Secret", "1"), ("Upgrade", "websocket"), ("Keep-Alive", "9"),
        ("Transfer-Encoding", "chunked"), ("Content-Length", "5"), ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/admin"), ("Via", "1.1 x"),
    ]  # fmt: skip
    asked = [
        ("Content-Type", "application/json"), ("Accept", "text/event-stream"), ("Idempotency-Key", "k"),
        ("Mcp-Session-Id", "s"), ("Last-Event-ID", "7"), ("X-Stainless-Lang", "python"), ("User-Agent", "me"),
    ]  # fmt: skip
    assert list(to_outside(inside + asked).items()) == asked


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "ä", "a\x7f"])
def test_a_header_that_not_every_server_reads_alike_is_refused(value: str) -> None:
    with pytest.raises(AgentRefusedError) as refused:
        to_outside([("X-Note", value)])
    assert refused.value.status == 400
    assert "x-note" in refused.value.detail


def test_an_answer_sets_no_cookies_and_keeps_the_rest() -> None:
    answer = {
        "Content-Type": "text/event-stream", "Set-Cookie": "a=1", "Connection": "x-hop", "X-Hop": "1",
        "Transfer-Encoding": "chunked", "Retry-After": "3", "X-Request-Id": "r", "Server": "uvicorn",
    }  # fmt: skip
    assert dict(to_inside(answer)) == {"Content-Type": "text/event-stream", "Retry-After": "3", "X-Request-Id": "r"}
