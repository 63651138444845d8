"""The attempts that need a control plane are tests of the API: runs them and reads what became of each."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.escape.credential_attempts import ATTEMPTS
from tests.escape.table import Report, Verdict

_TESTS = Path(__file__).parents[1] / "api" / "test_agent_abuse.py"
_SECONDS = 900


def reports() -> list[Report]:
    """Each attempt with its control; a test holds both, and fails when either goes wrong."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(_TESTS), f"--junitxml={record}"]
        subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        cases = {case.get("name", ""): case for case in ElementTree.parse(record).iter("testcase")}
    found: list[Report] = []
    for attempt in ATTEMPTS:
        case = cases.get(f"test_attempt[{attempt.name}]")
        wrong = case is None or any(child.tag in ("failure", "error", "skipped") for child in case)
        verdict = Verdict("broken", "its test failed") if wrong else Verdict("refused", "refused in good order")
        found.append(Report(attempt, verdict, Verdict("refused" if wrong else "won", "whom it belongs to")))
    return found
