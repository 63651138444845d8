import importlib.metadata
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.stack import bootstrap, config, credentials, leftovers, ports, supervisor
from workers.stack.gvisor import pinned_version, version_of
from workers.stack.lifecycle import not_ready
from workers.stack.paths import CHECKOUT, Paths, reachable_by_others
from workers.stack.processes import WORKERS, Process
from workers.stack.seeding import tenants
from workers.stack.steps import SetupError, run

OURS = ("workflows", "activities", "workers", "api", "models", "sandbox", "cli")


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    made = Paths.of(tmp_path / "100% of it")
    made.make()
    yield made
    # A data folder as deep as pytest's has its run folders elsewhere.
    made.runs.rmdir()


@pytest.mark.parametrize("name", OURS)
def test_our_package_names_are_ours_alone(name: str) -> None:
    # An editable install puts the checkout after site-packages: another distribution's package would win.
    assert set(importlib.metadata.packages_distributions().get(name, ["awgp"])) == {"awgp"}
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).is_relative_to(CHECKOUT)


def test_a_default_port_is_taken_when_free_and_left_when_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = ports.choose({}, {"AWGP_API_PORT": str(port)}, any_free=True)
        assert chosen.api != port
    assert ports.choose({}, {"AWGP_API_PORT": str(port)}, any_free=True).api == port


def test_a_kept_port_stays_also_when_it_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ports.choose({"AWGP_API_PORT": str(port)}, {}, any_free=True).api == port


def test_all_ports_differ() -> None:
    settings = ports.choose({}, {}, any_free=True).settings()
    assert len(set(settings.values())) == len(settings)


def test_config_is_kept_with_every_character(tmp_path: Path) -> None:
    settings = {"A": "plain", "B": "with space and 'quotes' and = and #", "C": ""}
    config.write(tmp_path / "config.env", settings)
    assert config.read(tmp_path / "config.env") == settings


def test_secrets_are_private_kept_and_handed_out_by_the_table(paths: Paths) -> None:
    made = credentials.Credentials.load_or_make(paths)
    made.hand_out(paths, ports.Ports())
    assert credentials.Credentials.load_or_make(paths) == made
    for process, held in credentials.HOLDS.items():
        files = {path.name for path in (paths.secrets / process).iterdir()}
        assert files == {f"awgp_{name}" for name in held}
    for path in paths.secrets.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_what_a_process_no_longer_holds_is_taken_away(paths: Paths) -> None:
    made = credentials.Credentials.load_or_make(paths)
    made.hand_out(paths, ports.Ports())
    (paths.secrets / "api" / "awgp_warrant_private_key").write_text("left from before")
    made.hand_out(paths, ports.Ports())
    assert not (paths.secrets / "api" / "awgp_warrant_private_key").exists()


def test_only_the_control_worker_holds_the_warrant_key() -> None:
    assert [name for name, held in credentials.HOLDS.items() if "warrant_private_key" in held] == ["control"]
    assert [name for name, held in credentials.HOLDS.items() if "database_owner_url" in held] == ["owner"]
    assert set(WORKERS) <= set(credentials.HOLDS)


def test_the_warrant_key_set_is_public(paths: Paths) -> None:
    (key,) = json.loads(credentials.Credentials.load_or_make(paths).warrant_jwks())["keys"]
    assert key["crv"] == "Ed25519"
    assert key["kid"]
    assert "d" not in key


def test_a_path_with_a_per_cent_sign_and_spaces_reaches_the_program(paths: Paths) -> None:
    process = Process("one", ["/bin/echo", "50%", "it's"], {"X": "a'b\"c %"})
    target = supervisor.write(paths, [process])
    from configparser import ConfigParser

    parsed = ConfigParser()
    parsed.read(target)
    command = parsed["program:one"]["command"]
    done = subprocess.run(
        ["sh", "-c", f"{command} && cat '{paths.supervisor}/pids/one'"], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[0] == "50% it's"
    assert len(done.stdout.splitlines()[1].split()) == 2


def test_a_recorded_process_is_ended_and_another_with_its_pid_is_not(paths: Paths) -> None:
    (paths.supervisor / "pids").mkdir()
    ours = subprocess.Popen(["sleep", "60"])
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        leftovers.record(paths, "ours", ours.pid)
        (paths.supervisor / "pids" / "old").write_text(f"{stranger.pid} 12345\n")
        assert leftovers.end(paths) == ["ours"]
        assert ours.wait(5) == -9
        assert stranger.poll() is None
        assert leftovers.recorded(paths) == []
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


def test_a_zombie_does_not_live() -> None:
    process = subprocess.Popen(["true"])
    for _ in range(100):
        if leftovers.start_time(process.pid) is None:
            break
        time.sleep(0.02)
    assert leftovers.start_time(process.pid) is None
    process.wait()


def test_a_failing_step_names_the_command_that_mends_it() -> None:
    with pytest.raises(SetupError, match="ended with 3") as caught:
        run(["sh", "-c", "echo why >&2; exit 3"], "do this")
    assert caught.value.mend == "do this"
    assert "why" in caught.value.what


def test_gvisor_dates_are_read_from_old_and_new_ones(tmp_path: Path) -> None:
    for words, date in (("runsc version 0.0~20221219.0", 20221219), ("runsc version 20260701", 20260701), ("?", 0)):
        binary = tmp_path / "runsc"
        binary.write_text(f"#!/bin/sh\necho '{words}'\n")
        binary.chmod(0o755)
        assert version_of(binary) == date
    assert pinned_version() >= 20260701


def test_the_seed_file_names_its_tenants() -> None:
    assert tenants(CHECKOUT / "deploy" / "seed.yaml") == ["example-holding", "acme", "globex"]


def test_a_private_home_is_not_reachable_by_others(tmp_path: Path) -> None:
    inner = tmp_path / "home" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "home").chmod(0o700)
    assert not reachable_by_others(inner)
    assert reachable_by_others(Path("/usr/bin"))


def test_run_folders_leave_room_for_a_socket() -> None:
    deep = Paths(Path("/a" * 29), Path("/cache"))
    run_folder = deep.runs / "example-holding" / "0198c0de-0000-7000-8000-000000000000" / "guest.sock"
    assert len(str(run_folder)) < 108
    assert os.path.commonpath([deep.runs, deep.data]) != str(deep.data)


def test_the_bootstrap_needs_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(bootstrap.__file__)!r}, run_name='x')"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_locks_name_no_index_and_hash_everything() -> None:
    locks = [CHECKOUT / "requirements.lock", *(CHECKOUT / "deploy" / "requirements").glob("*.lock")]
    assert len(locks) == 3
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text
        assert "index-url" not in text
        pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert pinned
        assert all("==" in line and line.endswith("\\") for line in pinned)


def test_what_is_not_ready_is_named() -> None:
    postgres = {"name": "postgres", "state": "ok", "words": ""}
    broker = {"name": "broker", "state": "away", "words": "nobody listens"}
    assert not_ready(json.dumps({"dependencies": [postgres]})) == []
    assert not_ready(json.dumps({"dependencies": [postgres, broker]})) == ["broker: nobody listens"]
    assert not_ready("") == ["no answer"]
    assert not_ready("<html>") == ["<html>"]
