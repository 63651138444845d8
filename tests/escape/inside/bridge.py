"""Abuse of the two HTTP sockets, by bytes of the attacker's own making, past the guest that usually carries them.

The servers outside are the suite's own: they keep what reached them and say it back, so an attack knows what it did.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from harness import WHERE, Refused

LLM, AWGP = "llm", "awgp"
_BODY = b'{"model":"m","messages":[]}'
_POST = b"POST /llm/v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
_TRUTH = {LLM: b"/llm/v1/models", AWGP: b"/context"}


def _dial(side: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(5)
    line.connect(f"/awgp/run/{side}.sock")
    return line


def _read(line: socket.socket, seconds: float = 3) -> bytes:
    """All that comes, until it is closed or nothing comes any more."""
    line.settimeout(seconds)
    pieces: list[bytes] = []
    with contextlib.suppress(OSError):
        while piece := line.recv(65536):
            pieces.append(piece)
            line.settimeout(0.2)
    return b"".join(pieces)


def _say(side: str, *pieces: bytes) -> bytes:
    """Sends these bytes and returns the answer's."""
    with _dial(side) as line:
        with contextlib.suppress(OSError):  # Closed while we speak: the answer says why.
            for piece in pieces:
                line.sendall(piece)
        return _read(line)


def _seen(side: str) -> list[dict[str, Any]]:
    """What the server outside was asked, in its own words."""
    answer = _say(side, b"GET " + _TRUTH[side] + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    _, _, body = answer.partition(b"\r\n\r\n")
    try:
        return json.loads(body[body.index(b"[") : body.rindex(b"]") + 1])
    except ValueError as error:
        raise AssertionError(f"a good request was not answered: {answer[:200]!r}") from error


def _judge(side: str, answer: bytes, wins: Callable[[dict[str, Any]], bool]) -> str:
    for entry in _seen(side):
        if wins(entry):
            return f"outside was asked: {entry['line'][:60]} {entry.get('why', '')}"
    first = answer.partition(b"\r\n")[0].decode(errors="replace")
    raise Refused(f"answered {first[:60] or 'nothing'}")


def _reaches(side: str, raw: bytes, marker: str) -> str:
    """Won where a request line with the marker arrives."""
    return _judge(side, _say(side, raw), lambda entry: marker in entry["line"])


def _path(side: str, method: str, target: str, marker: str, headers: str = "") -> str:
    return _reaches(side, f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode(), marker)


def another_path() -> str:
    return _path(AWGP, "GET", "/v1/work-items?m1", "m1")


def another_path_by_loopback() -> str:
    """By the port that the guest serves, where it does: it carries bytes and knows nothing of them."""
    with contextlib.closing(_by_port(4020)) as line:
        line.sendall(b"GET /v1/work-items?m0 HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = _read(line)
    return _judge(AWGP, answer, lambda entry: "m0" in entry["line"])


def _by_port(port: int) -> socket.socket:
    try:
        return socket.create_connection(("127.0.0.1", port), timeout=5)
    except ConnectionRefusedError:
        return _dial(AWGP)


def dots() -> str:
    return _path(AWGP, "GET", "/actions/../../work-items/m2", "m2")


def escaped_dots() -> str:
    return _path(AWGP, "GET", "/actions/%2e%2e/%2e%2e/work-items/m3", "m3")


def twice_escaped_dots() -> str:
    return _path(AWGP, "GET", "/actions/%252e%252e%252fwork-items/m4", "m4")


def escaped_slash() -> str:
    return _path(AWGP, "GET", "/actions/x%2f..%2f..%2fwork-items/m5", "m5")


def backslash() -> str:
    return _path(AWGP, "GET", "/actions/..\\..\\work-items\\m6", "m6")


def path_parameters() -> str:
    return _path(AWGP, "GET", "/actions/..;/..;/work-items/m7", "m7")


def doubled_slashes() -> str:
    return _path(AWGP, "GET", "//v1//work-items/m8", "m8")


def fragment() -> str:
    return _path(AWGP, "GET", "/context#/../../work-items/m9", "m9")


def absolute_form() -> str:
    return _path(AWGP, "GET", "http://control-plane/v1/work-items/m10", "m10")


def other_scheme() -> str:
    return _path(LLM, "GET", "file:///etc/passwd?m11", "m11")


def connect_a_tunnel() -> str:
    return _path(LLM, "CONNECT", "m12.example.com:443", "m12")


def options_star() -> str:
    return _path(AWGP, "OPTIONS", "*", "OPTIONS *")


def trace_request() -> str:
    return _path(AWGP, "TRACE", "/context?m14", "TRACE")


def unlisted_method() -> str:
    return _path(AWGP, "DELETE", "/actions/m15", "m15")


def made_up_method() -> str:
    return _path(AWGP, "GIT", "/context?m16", "m16")


def route_of_the_other_socket() -> str:
    return _path(LLM, "GET", "/actions/m17", "m17")


def decide_its_own_approval() -> str:
    body = b'{"decision":"approve"}'
    raw = b"POST /v1/approvals/m18/decision HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    return _reaches(AWGP, raw, "m18")


def admin_of_the_gateway() -> str:
    return _path(LLM, "GET", "/llm/v1/../../admin/keys?m19", "m19")


def query_with_line_ends() -> str:
    return _path(AWGP, "GET", "/actions/a?x=%0d%0aX-Awgp-Tenant:m20\x0bHTTP", "m20")


def endless_path() -> str:
    return _path(AWGP, "GET", "/actions/" + "m21" * 40000, "m21")


def http2_preface() -> str:
    return _reaches(LLM, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(64), "PRI")


def upgrade() -> str:
    """To another protocol, in which nobody reads along."""
    headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    raw = f"GET /llm/v1/models?m22 HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
    answer = _say(LLM, raw)
    return _judge(LLM, answer, lambda entry: "m22" in entry["line"] and "upgrade" in entry["headers"])


def websocket() -> str:
    headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    answer = _say(AWGP, f"GET /mcp?m23 HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return _judge(AWGP, answer, lambda entry: "m23" in entry["line"] and "upgrade" in entry["headers"])


def _forges(marker: str, headers: str, wins: Callable[[dict[str, Any]], bool]) -> str:
    answer = _say(AWGP, f"GET /actions/{marker} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode("latin-1"))
    return _judge(AWGP, answer, lambda entry: marker in entry["line"] and wins(entry))


def _header_arrives(marker: str, name: str, value: str) -> str:
    return _forges(marker, f"{name}: {value}\r\n", lambda entry: value in str(entry["headers"]))


def forged_authorization() -> str:
    return _forges("f1", "Authorization: Bearer forged\r\n", lambda entry: entry["bearer"] == "forged")


def second_authorization() -> str:
    headers = "authorization: Bearer forged\r\nAUTHORIZATION: Basic Zm9yZ2Vk\r\n"
    return _forges("f2", headers, lambda entry: entry["bearer"] != "the run's")


def authorization_dropped() -> str:
    """A hop-by-hop list that names what is put on outside: a loose server might take nobody for one of its own."""
    headers = "Connection: close, authorization, x-awgp-run-attempt\r\n"
    return _forges("f3", headers, lambda entry: entry["bearer"] != "the run's")


def forged_attempt() -> str:
    return _header_arrives("f4", "X-Awgp-Run-Attempt", "forged-4")


def forged_tenant() -> str:
    return _header_arrives("f5", "X-Awgp-Tenant", "forged-5")


def forged_by_underscore() -> str:
    return _header_arrives("f6", "X_Awgp_Tenant", "forged-6")


def forged_sender() -> str:
    return _header_arrives("f7", "X-Forwarded-For", "forged-7")


def forged_forwarded() -> str:
    return _header_arrives("f8", "Forwarded", "for=forged-8;host=h;proto=https")


def forged_host() -> str:
    raw = b"GET /actions/f9 HTTP/1.1\r\nHost: forged-9\r\n\r\n"
    return _judge(AWGP, _say(AWGP, raw), lambda entry: "f9" in entry["line"] and "forged-9" in str(entry["headers"]))


def forged_cookie() -> str:
    return _header_arrives("f10", "Cookie", "session=forged-10")


def forged_method() -> str:
    return _header_arrives("f11", "X-HTTP-Method-Override", "DELETE-forged-11")


def forged_url() -> str:
    return _header_arrives("f12", "X-Original-URL", "/v1/forged-12")


def forged_identity() -> str:
    return _header_arrives("f13", "Teleport-Jwt-Assertion", "forged-13")


def forged_provider_key() -> str:
    raw = b"POST /llm/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX-Api-Key: forged-14\r\n\r\n%b"
    answer = _say(LLM, raw % (len(_BODY), _BODY))
    return _judge(LLM, answer, lambda entry: "forged-14" in str(entry["headers"]))


def forged_by_trailer() -> str:
    """Headers after the body, which some servers read as if they stood before it."""
    head = _POST + b"Transfer-Encoding: chunked\r\nTrailer: X-Awgp-Tenant\r\n"
    raw = head + b"\r\n%x\r\n%b\r\n0\r\nX-Awgp-Tenant: forged-15\r\n\r\n" % (len(_BODY), _BODY)
    answer = _say(LLM, raw)
    return _judge(LLM, answer, lambda entry: "forged-15" in str(entry))


def forged_by_line_end() -> str:
    """A carriage return alone, which some take for the end of a line."""
    return _forges("f16", "X-A: b\rX-Awgp-Tenant: forged-16\r\n", lambda entry: "forged-16" in str(entry["headers"]))


def forged_by_folded_line() -> str:
    headers = "X-A: b\r\n X-Awgp-Tenant: forged-17\r\n"
    return _forges("f17", headers, lambda entry: "forged-17" in str(entry["headers"]))


def forged_by_space_before_colon() -> str:
    return _forges("f18", "X-Awgp-Tenant : forged-18\r\n", lambda entry: "forged-18" in str(entry["headers"]))


def forged_by_nul() -> str:
    return _forges("f19", "X-A: b\0X-Awgp-Tenant: forged-19\r\n", lambda entry: "forged-19" in str(entry["headers"]))


def _smuggles(marker: str, head: bytes, body: bytes) -> str:
    """Won where what stood in a body arrives as a request of its own."""
    return _judge(LLM, _say(LLM, head + b"\r\n" + body), lambda entry: f"/smuggled/{marker}" in entry["line"])


def _hidden(marker: str) -> bytes:
    return f"GET /smuggled/{marker} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def smuggle_length_and_chunks() -> str:
    return _smuggles("s1", _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + _hidden("s1"))


def smuggle_chunks_and_length() -> str:
    return _smuggles("s2", _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + _hidden("s2"))


def smuggle_two_lengths() -> str:
    return _smuggles("s3", _POST + b"Content-Length: 0\r\nContent-Length: 99\r\n", _hidden("s3"))


def smuggle_a_list_of_lengths() -> str:
    return _smuggles("s4", _POST + b"Content-Length: 0, 99\r\n", _hidden("s4"))


def smuggle_negative_length() -> str:
    return _smuggles("s5", _POST + b"Content-Length: -1\r\n", _hidden("s5"))


def smuggle_signed_length() -> str:
    return _smuggles("s6", _POST + b"Content-Length: +0\r\n", _hidden("s6"))


def smuggle_strange_encoding() -> str:
    return _smuggles("s7", _POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", _hidden("s7"))


def smuggle_two_encodings() -> str:
    head = _POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"
    return _smuggles("s8", head, b"0\r\n\r\n" + _hidden("s8"))


def smuggle_folded_encoding() -> str:
    head = _POST + b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n"
    return _smuggles("s9", head, _hidden("s9"))


def smuggle_bare_line_feeds() -> str:
    head = b"POST /llm/v1/chat/completions HTTP/1.1\nHost: x\nContent-Length: 0\n"
    return _judge(LLM, _say(LLM, head + b"\n" + _hidden("s10")), lambda entry: "/smuggled/s10" in entry["line"])


def smuggle_by_chunk_extension() -> str:
    body = b"0;a=\nb\r\n\r\n" + _hidden("s11")
    return _smuggles("s11", _POST + b"Transfer-Encoding: chunked\r\n", body)


def smuggle_by_huge_chunk() -> str:
    """A size that wraps to nothing in 64 bits."""
    body = b"10000000000000000\r\n\r\n" + _hidden("s12")
    return _smuggles("s12", _POST + b"Transfer-Encoding: chunked\r\n", body)


def smuggle_body_of_a_get() -> str:
    hidden = _hidden("s13")
    head = b"GET /llm/v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(hidden)
    return _smuggles("s13", head, hidden)


def smuggle_behind_an_old_version() -> str:
    head = b"POST /llm/v1/chat/completions HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n"
    return _smuggles("s14", head, _hidden("s14"))


def pipelined() -> str:
    """A good request, and the forbidden one behind it before the first was answered."""
    good = b"GET /llm/v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    return _judge(LLM, _say(LLM, good + good + _hidden("s15")), lambda entry: "/smuggled/s15" in entry["line"])


def truncated_body() -> str:
    """Shorter than it was said to be: the rest must not be taken from elsewhere, nor the part for a whole."""
    with _dial(LLM) as line:
        line.sendall(_POST + b"X-Mark: cut-1\r\nContent-Length: 4096\r\n\r\n" + _BODY)
        line.shutdown(socket.SHUT_WR)
        answer = _read(line)
    return _judge(LLM, answer, lambda entry: "cut-1" in str(entry["headers"]))


def _oversized(head: bytes, pieces: Callable[[], Any], mark: str, most: int) -> str:
    with _dial(LLM) as line:
        line.settimeout(6)
        with contextlib.suppress(OSError):
            line.sendall(_POST + b"X-Mark: " + mark.encode() + b"\r\n" + head + b"\r\n")
            for piece in pieces():
                line.sendall(piece)
        answer = _read(line, 6)
    return _judge(LLM, answer, lambda entry: mark in str(entry["headers"]) and entry["size"] > most)


def _mebibytes(count: int) -> Any:
    return (b"x" * (1 << 20) for _ in range(count))


def oversized_body() -> str:
    return _oversized(b"Content-Length: %d\r\n" % (10 << 20), lambda: _mebibytes(10), "big-1", 8 << 20)


def oversized_in_chunks() -> str:
    chunks = lambda: (b"100000\r\n" + piece + b"\r\n" for piece in _mebibytes(10))  # noqa: E731
    return _oversized(b"Transfer-Encoding: chunked\r\n", chunks, "big-2", 8 << 20)


def oversized_header() -> str:
    answer = _say(AWGP, b"GET /actions/big-3 HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * (1 << 20) + b"\r\n\r\n")
    return _judge(AWGP, answer, lambda entry: "big-3" in entry["line"])


def a_thousand_headers() -> str:
    headers = b"".join(b"X-%d: a\r\n" % number for number in range(40000))
    answer = _say(AWGP, b"GET /actions/big-4 HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
    return _judge(AWGP, answer, lambda entry: "big-4" in entry["line"])


def packed_body() -> str:
    """A body that unpacks to far more than it is."""
    head = b"Content-Encoding: gzip\r\nContent-Length: 64\r\n"
    return _oversized(head, lambda: [bytes(64)], "big-5", 0)


def warrant_in_an_answer() -> str:
    """Every answer that can be had, good and bad ones, searched for the run's credential."""
    asked = [
        b"GET /llm/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"BAD\r\n\r\n",
        _POST + b"Content-Length: 2\r\n\r\n{}",
        b"GET /llm/v1/models/reflect HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    for raw in asked:
        for word in re.split(rb"[^A-Za-z0-9._-]+", _say(LLM, raw)):
            if hashlib.sha256(word).hexdigest() == WHERE["warrant_sha256"]:
                return "an answer held the run's warrant"
    raise Refused("no answer held it")


def _still_answers(side: str = LLM) -> float:
    started = time.monotonic()
    _seen(side)
    return time.monotonic() - started


def _crowd(count: int, opening: bytes) -> str:
    """Won where a good request is not answered while so many others wait."""
    lines: list[socket.socket] = []
    try:
        for _ in range(count):
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(2)
            try:
                line.connect("/awgp/run/llm.sock")
                line.sendall(opening)
            except OSError:
                line.close()
                break
            lines.append(line)
        took = _still_answers()
    except AssertionError as error:
        return f"with {len(lines)} connections: {error}"
    finally:
        for line in lines:
            line.close()
    raise Refused(f"with {len(lines)} waiting, a good request took {took:.2f} s")


def slow_heads() -> str:
    return _crowd(200, b"GET /llm/v1/models HTTP/1.1\r\nHo")


def slow_bodies() -> str:
    return _crowd(200, _POST + b"Content-Length: 1000\r\n\r\n{")


def crowd_then_leave() -> str:
    """More than may be: refused while they last, and nobody misses anything after."""
    with contextlib.suppress(Refused):
        _crowd(700, b"")
    time.sleep(0.3)
    try:
        took = _still_answers()
    except AssertionError as error:
        return f"after they had left: {error}"
    raise Refused(f"after they had left, a good request took {took:.2f} s")


def guest_frames() -> str:
    """The guest's own protocol on the agent's socket: it must mean nothing there."""
    answer = _say(LLM, b"H\x00\x00\x00\x02{}")
    if answer[:1] == b"W":
        return "welcomed as a guest"
    raise Refused(f"answered {answer[:20]!r}")


def _saved(target: str, body: bytes = b"x") -> str:
    raw = f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    answer = _say(AWGP, raw)
    status = answer.split(b" ", 2)[1:2]
    if status == [b"201"]:
        return f"saved as {target[:60]}"
    raise Refused(f"answered {answer[:30]!r}")


def fill_the_hosts_log() -> str:
    """Nonsense, three hundred times; what was logged is counted outside."""
    for number in range(300):
        _say(LLM, b"GET file:///%d HTTP/1.1\r\n\r\n" % number)
    raise Refused("said")


def save_above_the_folder() -> str:
    return _saved("/artifacts/../../../etc/cron.d/x")


def save_above_by_escapes() -> str:
    return _saved("/artifacts/%2e%2e/%2e%2e/x")


def save_at_the_root() -> str:
    return _saved("/artifacts//etc/passwd")


def save_with_a_nul() -> str:
    return _saved("/artifacts/a%00b")


def save_with_an_escaped_slash() -> str:
    return _saved("/artifacts/a%2f..%2f..%2fb")


def save_too_much() -> str:
    return _saved("/artifacts/too-much", b"x" * (3 << 20))
