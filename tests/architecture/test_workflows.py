"""What the style asks of workflows, held where a reviewer would say it twice."""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path

import pytest

from workflows import options

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "workflows").glob("*.py") if path.name not in ("__init__.py", "client.py"))
OURS = ("workflows", "activities", "workers", "api", "models", "sandbox", "cli")
CLOCKS_AND_CHANCE = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.monotonic", "time.sleep",
    "asyncio.sleep", "asyncio.wait_for", "asyncio.wait", "asyncio.gather", "asyncio.timeout", "uuid.uuid4", "uuid4",
    "random.random", "random.choice", "os.environ", "os.getenv", "open", "print", "input",
}  # fmt: skip
ids = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


@ids
def test_workflows_hold_no_clock_and_no_chance(path: Path) -> None:
    """They are passed through the SDK's sandbox for speed, so this is what keeps them deterministic."""
    found = {
        f"{ast.unparse(node)} (line {node.lineno})"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in CLOCKS_AND_CHANCE
    }
    assert not found


@ids
def test_one_block_of_imports_is_passed_through_with_a_reason_each(path: Path) -> None:
    text = path.read_text()
    blocks = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.With) and "imports_passed_through" in ast.unparse(node.items[0])
    ]
    assert len(blocks) <= 1
    lines = text.splitlines()
    for block in blocks:
        for statement in block.body:
            assert isinstance(statement, ast.ImportFrom | ast.Import)
            said = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
            assert "#" in said, f"{path.name}:{statement.lineno} gives no reason"


@ids
def test_no_timeout_or_policy_is_made_outside_options(path: Path) -> None:
    if path.name == "options.py":
        return
    made = [
        f"{ast.unparse(node.func)} (line {node.lineno})"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("timedelta", "RetryPolicy")
    ]
    assert not made


def test_every_option_says_why() -> None:
    """A name, or a group of names that belong together, is followed by its reason."""
    body = ast.parse((ROOT / "workflows" / "options.py").read_text()).body
    for number, statement in enumerate(body):
        if not isinstance(statement, ast.Assign):
            continue
        after = next((later for later in body[number + 1 :] if not isinstance(later, ast.Assign)), None)
        said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        assert said, f"line {statement.lineno}: {ast.unparse(statement)}"


def test_one_workflow_a_file() -> None:
    for path in FILES:
        definitions = [
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ClassDef)
            and any("workflow.defn" in ast.unparse(one) for one in node.decorator_list)
        ]
        assert len(definitions) <= 1, path.name


def test_local_work_never_outlasts_a_workflow_task() -> None:
    assert options.LOCAL_START_TO_CLOSE * 2 <= options.LOCAL_SCHEDULE_TO_CLOSE
    assert options.LOCAL_SCHEDULE_TO_CLOSE.total_seconds() < 10


def test_no_other_distribution_brings_packages_of_our_names() -> None:
    """An editable install puts the checkout behind site-packages: another's `models` would be imported instead."""
    brought = importlib.metadata.packages_distributions()
    assert {name: set(brought.get(name, ["awgp"])) for name in OURS} == {name: {"awgp"} for name in OURS}
