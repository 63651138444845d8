import asyncio
import os
from pathlib import Path

import pytest

from sandbox.guest_frames import GuestProtocolError, OutputPiece
from sandbox.link.messages import OutputStream
from sandbox.spool import OutputSpool

OUT, ERR = OutputStream.STDOUT, OutputStream.STDERR


def test_what_comes_twice_is_kept_once_and_a_gap_is_refused(tmp_path: Path) -> None:
    spool = OutputSpool(tmp_path, 1000)
    spool.append(OutputPiece(0, OUT, 1, b"hello "))
    spool.append(OutputPiece(0, OUT, 1, b"hello world"))
    spool.append(OutputPiece(3, OUT, 1, b"lo"))
    with pytest.raises(GuestProtocolError):
        spool.append(OutputPiece(12, OUT, 1, b"x"))
    assert b"".join(record.data for record in spool.read(0, 100)) == b"hello world"
    spool.close()


def test_reads_from_the_middle_of_a_record_and_keeps_the_streams_apart(tmp_path: Path) -> None:
    spool = OutputSpool(tmp_path, 1000)
    spool.append(OutputPiece(0, OUT, 1, b"abc"))
    spool.append(OutputPiece(3, ERR, 2, b"def"))
    spool.append(OutputPiece(6, OUT, 3, b"ghi"))
    records = spool.read(1, 6)
    assert [(r.offset, r.stream, r.data) for r in records] == [(1, OUT, b"bc"), (3, ERR, b"def"), (6, OUT, b"g")]
    spool.close()


async def test_a_later_process_finds_it_and_drops_a_cut_off_tail(tmp_path: Path) -> None:
    spool = OutputSpool(tmp_path, 1000)
    spool.append(OutputPiece(0, OUT, 1, b"abc"))
    spool.append(OutputPiece(3, ERR, 2, b"defg"))
    assert await spool.make_durable() == 7
    spool.close()
    os.truncate(tmp_path / "output.bin", 5)
    again = OutputSpool(tmp_path, 1000)
    assert again.end == 3
    again.append(OutputPiece(3, ERR, 2, b"defg"))
    assert b"".join(record.data for record in again.read(0, 100)) == b"abcdefg"
    again.close()


def test_small_writes_are_merged_and_the_limit_keeps_what_fits(tmp_path: Path) -> None:
    spool = OutputSpool(tmp_path, 1000)
    for offset in range(1000):
        spool.append(OutputPiece(offset, OUT, 5, b"x"))
    assert not spool.over_limit
    assert len(spool.read(0, 5000)) == 1
    spool.append(OutputPiece(1000, OUT, 5, b"y"))
    assert spool.over_limit
    assert spool.end == 1000
    spool.close()


async def test_a_waiting_reader_is_woken_by_bytes_and_by_the_end(tmp_path: Path) -> None:
    spool = OutputSpool(tmp_path, 1000)
    waiting = asyncio.create_task(spool.wait_beyond(0))
    await asyncio.sleep(0)
    spool.append(OutputPiece(0, OUT, 1, b"x"))
    assert await waiting
    waiting = asyncio.create_task(spool.wait_beyond(1))
    await asyncio.sleep(0)
    spool.finish()
    assert not await waiting
    spool.close()
