"""What agents' images are made of is locked, and names no registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sandbox.image import wheels
from sandbox.image.agents import NAMES, NODE_AGENT, PYTHON_AGENTS, REQUIREMENTS, SCRIPTS, build_agent_image

LOCKED = [*(REQUIREMENTS / f"{name}.txt" for name in PYTHON_AGENTS), REQUIREMENTS / NODE_AGENT / "requirements.txt"]


@pytest.mark.parametrize("path", LOCKED, ids=lambda path: path.stem)
def test_every_python_package_is_pinned_with_a_hash_and_without_an_address(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[a-z0-9-]+==[0-9][^ ]* \\\n", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_every_npm_package_has_a_hash_and_no_address() -> None:
    lock = json.loads((REQUIREMENTS / NODE_AGENT / "package-lock.json").read_text())
    entries = {name: entry for name, entry in lock["packages"].items() if name}
    assert entries
    for name, entry in entries.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name


def test_each_image_has_its_script() -> None:
    for name in NAMES:
        assert (SCRIPTS / name / ("agent.mjs" if name == NODE_AGENT else "agent.py")).exists()


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are openai, "):
        build_agent_image("unix:///nowhere", tmp_path, lambda text: None, "other")


def test_what_another_process_fetched_first_is_taken(tmp_path: Path) -> None:
    made, there = tmp_path / "made", tmp_path / "there"
    for folder in (made, there):
        folder.mkdir()
        (folder / "wheel").write_text(folder.name)
    wheels.finish(made, there)
    assert (there / "wheel").read_text() == "there"
