"""The attacks that have a sandbox each: exhaustion, traps among artifacts, lies about the end."""

from __future__ import annotations

from sandbox.spec import Limits, RunOutcome
from tests.escape.alone import MIB, Lone
from tests.escape.ground import Ended
from tests.escape.table import Attempt, Defence

_LIMITS = frozenset({Defence.LIMITS})
_WALK = frozenset({Defence.NO_LINKS})
_WORD = frozenset({Defence.ENGINE_DECIDES})
_MEMORY = frozenset({RunOutcome.OUT_OF_MEMORY})


def _memory(function: str, won: str, **more: int) -> Lone:
    """Twice the memory there is. A control has ten times as much."""
    small = Limits(memory_bytes=96 * MIB, wall_seconds=90, **more)
    large = small.model_copy(update={"memory_bytes": 960 * MIB})
    attempt = Attempt(f"exhaustion.{function}", won, _LIMITS)
    return Lone(attempt, small, large, allowed=96 * MIB, ends=_MEMORY)


def _limited(function: str, won: str, allowed: int, ends: frozenset[RunOutcome] = frozenset(), **limit: int) -> Lone:
    """Twice of what a limit allows."""
    usual = {"wall_seconds": 60, "memory_bytes": 512 * MIB}
    small, large = Limits(**(usual | limit)), Limits(**(usual | {name: 10 * value for name, value in limit.items()}))
    return Lone(Attempt(f"exhaustion.{function}", won, _LIMITS), small, large, allowed, ends)


def _burns(ended: Ended) -> str:
    used = (ended.result.cpu_seconds or 0) / max(0.1, ended.result.wall_seconds)
    return f"{used:.2f} processors" if used > 0.45 else ""


EXHAUSTION = [
    Lone(
        Attempt("exhaustion.fork_bomb", "twice the processes", _LIMITS),
        Limits(memory_bytes=1024 * MIB, nproc=48),
        Limits(memory_bytes=2048 * MIB, nproc=480),
        48,
    ),
    _limited("threads", "twice the threads", 48, nproc=48),
    _limited("open_files", "twice the open files", 128, nofile=128),
    _memory("memory", "twice the memory"),
    _memory("memory_as_the_last_choice", "…while the kernel shall choose others"),
    _memory("memory_of_a_nameless_file", "…in a file without a name"),
    _memory("memory_shared_by_key", "…in System V segments"),
    _memory("memory_by_mapping", "…by mapping"),
    _memory("memory_in_pipes", "…in the buffers of pipes"),
    _memory("memory_in_sockets", "…in the buffers of sockets", nofile=8192),
    Lone(
        Attempt("exhaustion.disk_beyond_memory", "a disk that is memory takes more than that", _LIMITS),
        Limits(memory_bytes=96 * MIB, disk_bytes=1024 * MIB),
        Limits(memory_bytes=960 * MIB, disk_bytes=1024 * MIB),
        96 * MIB,
        _MEMORY,
    ),
    _limited("disk_of_workspace", "twice the disk", 8 * MIB, disk_bytes=8 * MIB, tmp_bytes=8 * MIB),
    _limited("disk_of_tmp", "twice the temporary disk", 8 * MIB, disk_bytes=8 * MIB, tmp_bytes=8 * MIB),
    _limited("disk_of_shared_memory", "twice the shared memory", 16 * MIB, disk_bytes=64 * MIB),
    _limited("disk_in_many_files", "twice the disk, in small files", 8 * MIB, disk_bytes=8 * MIB),
    _limited("huge_sparse_file", "a file of twice the size", 8 * MIB, disk_bytes=8 * MIB, tmp_bytes=8 * MIB),
    _limited("output_flood", "twice the output", MIB, frozenset({RunOutcome.OUTPUT_LIMIT}), output_bytes=MIB),
    _limited("time_without_end", "twice the time", 2, frozenset({RunOutcome.TIMED_OUT}), wall_seconds=3),
    _limited("stop_the_guest", "it runs on unwatched", 2, frozenset({RunOutcome.TIMED_OUT}), wall_seconds=3),
    Lone(
        Attempt("exhaustion.spin", "more processor than its share", _LIMITS),
        Limits(cpu_nanos=3 * 10**8),
        Limits(cpu_nanos=2 * 10**9),
        judge=_burns,
    ),
    Lone(
        Attempt(
            "exhaustion.kill_the_guest",
            "it runs on without a guest, or is said to have succeeded",
            no_control="process 1 takes all others with it: that is any kernel's rule, not a defence of ours",
        ),
        Limits(wall_seconds=20),
        judge=lambda ended: "succeeded" if ended.result.outcome is RunOutcome.SUCCEEDED else "",
    ),
]

_HONEST = {"good.txt", "setuid", "back\\slash", "a" * 255, "-rf", "...", "sparse"}


def _taken(ended: Ended) -> str:
    """Whatever was taken that is not a plain file of the agent's own."""
    wrong = sorted(set(ended.artifacts) - _HONEST)
    foreign = [path for path, data in ended.artifacts.items() if b"root:" in data or b'"argv"' in data]
    modes = [path for path, mode in ended.modes.items() if mode & 0o7111]
    missing = [] if ended.artifacts.get("good.txt") == b"good" else ["good.txt is missing"]
    return " ".join([*wrong, *foreign, *modes, *missing, *ended.strays])


def _live(ended: Ended) -> str:
    found = b"live: link-to-a-file folder/link-below link-to-a-folder/guest.json" in ended.output
    return "a collector that follows links takes them" if found else ""


def _swapped(ended: Ended) -> str:
    return " ".join(path for path, data in ended.artifacts.items() if data not in (b"mine", b""))


def _beyond(most_files: int, most_bytes: int):
    def judge(ended: Ended) -> str:
        size = sum(map(len, ended.artifacts.values()))
        over = len(ended.artifacts) > most_files or size > most_bytes
        return f"{len(ended.artifacts)} artifacts of {size} bytes" if over else ""

    return judge


ARTIFACTS = [
    Lone(
        Attempt("artifacts.set_traps", "a link, pipe, socket, strange name or mode comes out as an artifact", _WALK),
        judge=_taken,
        control_judge=_live,
    ),
    Lone(
        Attempt("artifacts.swap_while_it_is_read", "a folder that becomes a link is followed",
                no_control="the guest ends every process before it looks: nobody is left to swap"),
        judge=_swapped,
    ),
    Lone(
        Attempt("artifacts.folder_is_a_link", "the output folder itself leads elsewhere",
                no_control="a folder opened without following has no setting to switch off"),
        judge=lambda ended: " ".join(ended.artifacts),
    ),
    Lone(
        Attempt("artifacts.too_many", "400 artifacts",
                no_control="the number is a constant of both sides; each is tested by itself"),
        judge=_beyond(256, 1 << 40),
    ),
    Lone(
        Attempt("artifacts.too_large", "an artifact of twice the size", _LIMITS),
        Limits(artifact_bytes=MIB), Limits(artifact_bytes=10 * MIB), MIB, judge=_beyond(256, MIB),
    ),
    Lone(
        Attempt("artifacts.over_together", "artifacts of more than the limit together", _LIMITS),
        Limits(artifact_bytes=MIB), Limits(artifact_bytes=10 * MIB), MIB, judge=_beyond(256, MIB),
    ),
]  # fmt: skip


def _believed(ended: Ended) -> str:
    return "the lie was believed" if ended.result.outcome is RunOutcome.SUCCEEDED else ""


def _word_of_success(ended: Ended) -> str:
    return "the word that came said success" if ended.word is not None and ended.word.exit_code == 0 else ""


def _lease_believed(ended: Ended) -> str:
    return "a lost lease was believed" if ended.result.outcome is not RunOutcome.FAILED_EXIT else ""


def _strays(ended: Ended) -> str:
    return " ".join([*ended.strays, *(path for path in ended.artifacts if ".." in path or path.startswith("/"))])


def _rewritten(ended: Ended) -> str:
    return "" if ended.output.startswith(b"the truth\n") else repr(ended.output[:40])


def _unreadable(ended: Ended) -> str:
    """The result must be one that every database takes and no terminal obeys."""
    detail = ended.result.detail
    wrong = any(letter in detail for letter in "\0\x1b\x07") or len(detail) > 2000
    return repr(detail[:60]) if wrong or ended.result.outcome is RunOutcome.SUCCEEDED else ""


LIES = [
    Lone(Attempt("lies.forged_success", "a failed run is taken for a good one", _WORD), alone=True,
         judge=_believed, control_judge=_word_of_success),
    Lone(Attempt("lies.forged_lease_end", "exit 143 is taken for a lost lease",
                 no_control="the lease is over by the runtime's own count or it is not: no setting says otherwise"),
         alone=True, judge=_lease_believed),
    Lone(Attempt("lies.forged_paths", "a path of the agent's names a file of the host's",
                 no_control="no name of an agent's names a file out here, by construction"),
         alone=True, judge=_strays),
    Lone(Attempt("lies.rewritten_output", "output that was kept changes",
                 no_control="the spool has no way to write before its end, by construction"),
         alone=True, judge=_rewritten),
    Lone(Attempt("lies.forged_words", "a report carries what no database takes, or a terminal obeys",
                 no_control="what is too long or no text is cut where the value is made: it has no unchecked twin"),
         alone=True, judge=_unreadable),
]  # fmt: skip

LOGS = [
    Lone(
        Attempt("bridge.fill_the_hosts_log", "the runtime's log fills up", frozenset({Defence.QUIET_LOG})),
        judge=lambda ended: f"{ended.logged} lines" if ended.logged > 300 else "",
    ),
]

ATTEMPTS = [*EXHAUSTION, *ARTIFACTS, *LIES, *LOGS]

REPRESENTATIVE = (
    "exhaustion.fork_bomb", "exhaustion.memory", "exhaustion.disk_of_workspace", "exhaustion.output_flood",
    "exhaustion.stop_the_guest", "exhaustion.kill_the_guest", "artifacts.set_traps", "artifacts.folder_is_a_link",
    "lies.forged_success", "lies.forged_paths", "lies.forged_words", "bridge.fill_the_hosts_log",
)  # fmt: skip
"""What runs among all tests; the rest takes minutes and runs by ``make escape``."""
