"""Specs and folders of the sandbox's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sandbox.link.messages import RunRef
from sandbox.run_folder import RunFolder
from sandbox.spec import RunSpec


def spec_of(tenant_id: UUID | None = None, **fields: Any) -> RunSpec:
    values: dict[str, Any] = {
        "run_id": uuid4(),
        "work_item_id": uuid4(),
        "tenant_id": tenant_id or uuid4(),
        "assistant_id": uuid4(),
        "image": "example:1",
    }
    return RunSpec(**(values | fields))


def folder_in(base: Path, run: RunRef | None = None) -> RunFolder:
    folder = RunFolder.of(base / "state", base / "mounts", run or RunRef(run_id=uuid4(), attempt=1))
    folder.make()
    return folder
