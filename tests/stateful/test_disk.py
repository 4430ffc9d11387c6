"""A disk without power holds what was synced, and any part of the rest."""

import random
from collections.abc import Iterator

from stateful.disk import SECTOR, Disk
from stateful.recorder import Act, Begin, End, Link, Sync, SyncDirectory, Truncate, Unlink, Write

TIMES = 300

OLD = b"o" * 2 * SECTOR
NEW = b"n" * 2 * SECTOR


def disk_after(*acts: Act, lying: bool = False) -> Disk:
    """Return a disk with one file after some acts, which have ended one after the other."""
    disk = Disk({"file": OLD}, lying=lying)
    for number, act in enumerate(acts):
        disk.take(Begin(number, act))
        disk.take(End(number, succeeded=True))
    return disk


def outcomes(disk: Disk) -> Iterator[dict[str, bytes]]:
    """Return what a disk may hold, as far as that is found out in some hundred times."""
    return (disk.lose_power(random.Random(seed)) for seed in range(TIMES))


def contents(disk: Disk) -> set[bytes]:
    return {files["file"] for files in outcomes(disk)}


def test_what_was_synced_is_there() -> None:
    """What was written before a sync began is there once that has ended."""
    assert {NEW} == contents(disk_after(Write("file", 0, NEW), Sync("file")))


def test_what_was_not_synced_is_there_sector_by_sector() -> None:
    """Each sector of a write may have reached the disk, or not."""
    old, new = OLD[:SECTOR], NEW[:SECTOR]
    wanted = {old + old, old + new, new + old, new + new}
    assert wanted == contents(disk_after(Write("file", 0, NEW)))


def test_writes_reach_the_disk_in_any_order() -> None:
    """A later write may be there without an earlier one."""
    writes = Write("file", 0, NEW[:SECTOR]), Write("file", SECTOR, NEW[:SECTOR])
    assert 4 == len(contents(disk_after(*writes)))


def test_a_sector_holds_what_it_held_at_a_moment() -> None:
    """Where two writes share a sector, the later one is never there without the earlier one."""
    found = contents(disk_after(Write("file", 0, b"1"), Write("file", 1, b"2")))
    assert {b"oo", b"1o", b"12"} == {content[:2] for content in found}


def test_a_write_harms_no_neighbours() -> None:
    """In a sector that is written in part the rest stays as it was."""
    found = contents(disk_after(Write("file", 100, b"new")))
    assert {OLD, OLD[:100] + b"new" + OLD[103:]} == found


def test_a_sync_covers_what_had_ended_when_it_began() -> None:
    """A write that had not ended when a sync began may be lost when that has ended."""
    disk = Disk({"file": OLD})
    disk.take(Begin(1, Write("file", 0, NEW)))
    disk.take(Begin(2, Sync("file")))
    disk.take(End(1, succeeded=True))
    disk.take(End(2, succeeded=True))
    assert {OLD, NEW} < contents(disk)


def test_a_sync_that_has_not_ended_covers_nothing() -> None:
    """While a sync is going on nothing is sure, nor after one that has failed."""
    disk = disk_after(Write("file", 0, NEW))
    disk.take(Begin(10, Sync("file")))
    assert {OLD, NEW} < contents(disk)


def test_a_sync_covers_its_own_file() -> None:
    """What was written to another file may be lost."""
    assert {OLD, NEW} < contents(disk_after(Write("file", 0, NEW), Sync("other")))


def test_what_failed_has_not_happened() -> None:
    """A write that has failed is not there."""
    disk = Disk({"file": OLD})
    disk.take(Begin(1, Write("file", 0, NEW)))
    disk.take(End(1, succeeded=False))
    assert {OLD} == contents(disk)


def test_a_file_may_have_grown_without_its_content() -> None:
    """Where a file has grown there is what was written, zeros or rubbish, or nothing."""
    found = contents(disk_after(Write("file", len(OLD), b"new")))
    grown = {OLD + tail for tail in (b"", b"\0\0\0", b"\xa5\xa5\xa5", b"new")}
    assert grown == found


def test_a_file_may_not_have_been_cut_yet() -> None:
    """A file that was cut has its old size or the new one, until it is synced."""
    assert {OLD, OLD[:7]} == contents(disk_after(Truncate("file", 7)))
    assert {OLD[:7]} == contents(disk_after(Truncate("file", 7), Sync("file")))


def test_a_name_may_be_there_or_not() -> None:
    """A name that was given or removed may be or not, until the directory is synced."""
    acts: list[Act] = [Link("new", "new#1"), Write("new#1", 0, b"1")]
    acts += [Sync("new#1"), Unlink("file")]
    found = {tuple(sorted(files)) for files in outcomes(disk_after(*acts))}
    assert {(), ("file",), ("new",), ("file", "new")} == found
    assert [{"new": b"1"}] * TIMES == list(outcomes(disk_after(*acts, SyncDirectory())))


def test_a_lying_disk_keeps_nothing() -> None:
    """A disk that lies may lose what was synced."""
    assert {OLD, NEW} < contents(disk_after(Write("file", 0, NEW), Sync("file"), lying=True))


def test_all_is_there_while_there_is_power() -> None:
    """As long as nothing happens, all that was done can be seen."""
    disk = disk_after(Write("file", 0, b"1"), Link("new", "new#1"), Write("new#1", 1, b"2"))
    assert {"file": b"1" + OLD[1:], "new": b"\x002"} == disk.now()
