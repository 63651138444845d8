"""The image's tag stands for its content, and its parts are laid out without an engine."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from sandbox.image import layout, packages
from sandbox.image.build import content_version, write_archive


def agents_in(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "agent.py").write_text(text)
    return folder


def test_the_tag_changes_with_packages_and_agents_and_with_nothing_else(tmp_path: Path) -> None:
    agents = agents_in(tmp_path / "agents", "print(1)")
    package = tmp_path / "python3_1_all.deb"
    package.write_bytes(b"one")
    first = content_version([package], agents)
    moved = Path(shutil.copytree(agents, tmp_path / "elsewhere" / "agents"))
    (moved / "__pycache__").mkdir()
    (moved / "__pycache__" / "agent.pyc").write_bytes(b"noise")
    assert content_version([package], moved) == first
    (agents / "agent.py").write_text("print(2)")
    second = content_version([package], agents)
    package.write_bytes(b"two")
    assert len({first, second, content_version([package], agents)}) == 3


def test_an_archive_is_the_same_bytes_for_the_same_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    layout.prepare(root)
    (root / "usr/bin/tool").write_text("x")
    write_archive(root, tmp_path / "one.tar")
    (root / "usr/bin/tool").touch()
    write_archive(root, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert {(entry.uid, entry.gid, entry.mtime) for entry in tar} == {(0, 0, 0)}
        assert tar.getmember("bin").linkname == "usr/bin"


def test_packages_that_bring_no_python_are_refused(tmp_path: Path) -> None:
    layout.prepare(tmp_path / "root")
    with pytest.raises(layout.LayoutError, match="no busybox"):
        layout.finish(tmp_path / "root", agents_in(tmp_path / "agents", ""))


def test_apts_own_words_are_passed_on(tmp_path: Path) -> None:
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get")
    with pytest.raises(packages.PackagesMissingError, match="no-such-package-anywhere"):
        packages.fetch(tmp_path, ("no-such-package-anywhere",))
