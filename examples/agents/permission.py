"""Asks before acting outside; the standard library is all it takes."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import Any

SECONDS = 60


def request_action(kind: str, target: str, reason: str, key: str) -> dict[str, Any]:
    """Asks whether an action may be done, and waits for people where they are asked.

    Returns:
        ``status`` (for instance ``permitted`` or ``denied``) and ``reason``.
    """
    asked = {"kind": kind, "target": target, "parameters": {}, "reason": reason, "mode": "wait", "idempotency_key": key}
    answer = _call("/actions", asked)
    while answer["status"] == "pending":
        time.sleep(1)
        answer = _call(f"/actions/{answer['id']}?wait=25")
    return {"status": answer["status"], "reason": answer.get("reason", "")}


def _call(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["AWGP_URL"] + path, data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 (the one address it is given)
        return json.load(answer)
