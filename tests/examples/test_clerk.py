"""The clerk of the demo, without a sandbox: its script leads to one question, asked under one key, and to a report."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from api.gateway.script import play
from cli.demo_agent import INVOICES, SCRIPT, TASK
from models.domain.action import ActionRequest, HttpEffect
from tests.examples.test_reconcile_expected import OPEN

CLERK = Path(__file__).parents[2] / "sandbox" / "agents" / "clerk.py"


class Door:
    """Where the agent asks: waits twice, then says what it was told to."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.progress: list[str] = []
        self.polls = 0

    def post(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/progress":
            self.progress.append(body["words"])
            return 204, {}
        self.asked.append((key, body))
        return 202, {"id": "one", "status": "pending", "wait_url": "/actions/one?wait=25"}

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        assert path == "/actions/one?wait=25"
        self.polls += 1
        if self.polls == 1:
            return 503, {"title": "away"}
        return (202, {"id": "one", "status": "pending"}) if self.polls == 2 else (200, self.answer)


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door({"status": "performed", "effect_result": {"status": 200}, "level": "L3"})

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.say(*door.post(self.path, self.headers.get("Idempotency-Key", ""), body))

        def do_GET(self) -> None:
            self.say(*door.get(self.path))

        def say(self, status: int, document: dict[str, Any]) -> None:
            content = b"" if status == 204 else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    door.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield door
    server.shutdown()
    thread.join()
    server.server_close()


class Client:
    """OpenAI's client as far as the clerk uses it, over the scripted upstream's own rules."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **_: Any) -> None:
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self.create))

    def create(self, **body: Any) -> Any:
        self.calls.append(body)
        played = play(body)
        calls = [
            SimpleNamespace(id=f"call-{n}", function=SimpleNamespace(**call)) for n, call in enumerate(played.calls)
        ]
        whole = {"role": "assistant", "content": played.text}
        message = SimpleNamespace(content=played.text, tool_calls=calls or None, model_dump=lambda **_: whole)
        choice = SimpleNamespace(message=message, finish_reason=played.finish)
        return SimpleNamespace(choices=[choice], usage=SimpleNamespace(total_tokens=10))


@pytest.fixture
def clerk(door: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    script = f"```awgp-script\n{json.dumps(SCRIPT)}\n```"
    Client.calls = []
    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace(OpenAI=Client))
    monkeypatch.setenv("AWGP_URL", door.url)
    inputs = tmp_path / "in"
    inputs.mkdir()
    shutil.copy(INVOICES, inputs)
    (inputs / "result.json").write_text(json.dumps({"open_invoices": [{"invoice": number} for number in OPEN]}))
    monkeypatch.setenv("AWGP_INPUT_DIR", str(inputs))
    monkeypatch.setenv("AWGP_OUTPUT_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("AWGP_PARAMETERS", json.dumps({"model": "awgp/scripted", "task": f"{TASK}\n\n{script}"}))
    spec = importlib.util.spec_from_file_location("clerk", CLERK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    return module


def test_three_calls_one_question_one_report(clerk: Any, door: Door, tmp_path: Path) -> None:
    assert clerk.main() == 0
    assert len(Client.calls) == 3
    [(key, body)] = door.asked
    assert key.startswith("pay-")
    request = ActionRequest.model_validate({name: value for name, value in body.items() if name != "mode"})
    assert HttpEffect.model_validate(request.effect).json_body["invoice"] == "BE-88120767"
    assert "entered for payment" in (tmp_path / "out" / "report.md").read_text()
    told = json.loads(Client.calls[2]["messages"][-2]["content"])
    assert told["status"] == "performed"
    assert door.progress[-1] == "wrote report.md"


def test_the_same_payment_has_the_same_key(clerk: Any, door: Door) -> None:
    for reason in ("because", "once more"):
        clerk.pay("MP-2026-0264", reason)
    clerk.pay("BE-88120767")
    keys = [key for key, _ in door.asked]
    assert keys[0] == keys[1] != keys[2]


def test_what_a_model_asks_wrongly_is_told_to_it(clerk: Any, door: Door) -> None:
    for number in ("X-1", "BE-88120431"):  # none, and one that is paid
        assert "no open invoice" in clerk.use("pay", json.dumps({"invoice_number": number}))
    for name, arguments in (("shell", "{}"), ("pay", "{"), ("pay", '{"to": "me"}'), ("due_invoices", '{"most": "x"}')):
        assert "error" in clerk.use(name, arguments)
    assert door.asked == []


def test_an_input_that_cannot_be_used_is_said(clerk: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWGP_INPUT_DIR", str(tmp_path / "none"))
    assert clerk.main() == 2
    monkeypatch.setenv("AWGP_PARAMETERS", "{}")
    assert clerk.main() == 2
