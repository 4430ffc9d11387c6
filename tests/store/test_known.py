"""What is known of topics, and what a batch makes of it."""

import pytest

from nsqlite.store import GONE, Batch, Copy, Row, StoredChannel, StoredTopic
from nsqlite.store.known import Known, changed, messages
from nsqlite.store.storage import HIGHEST
from store.files import row

TWO = {1: Known(1, counted=True, channels={7: 0, 8: 5})}


def topic(number: int, **fields: bool) -> StoredTopic:
    return StoredTopic(number=number, name=f"t{number}", **fields)


def test_up_to_where_messages_are_the_channels() -> None:
    """While a topic is paused, or has no channel, it is what was handed on."""
    assert HIGHEST == Known(1, handed=3, channels={7: 0}).upto
    assert 3 == Known(1, handed=3).upto
    assert 3 == Known(1, paused=True, handed=3, channels={7: 0}).upto


def test_new_topics_take_the_first_free_partitions() -> None:
    """When there is none left they share one; a known one keeps its own."""
    batch = Batch(topics={number: topic(number) for number in (4, 5, 6, 1)})
    new = changed(batch, TWO, {9, 3})
    assert {4: 3, 5: 9, 6: 0, 1: 1} == {number: known.partition for number, known in new.items()}
    assert TWO[1].channels == new[1].channels


def test_whatever_is_told_of_a_topic_makes_it_uncounted() -> None:
    """Unless the batch says that it is counted."""
    batches = [
        Batch(rows={1: []}),
        Batch(copies={(1, 7): {}}),
        Batch(emptied=[(1, 0, 1)]),
        Batch(unheld={1}),
        Batch(gone_channels={9: 1}),
        Batch(channels={7: StoredChannel(number=7, topic=1, name="c")}),
        Batch(topics={1: topic(1)}),
    ]
    assert [False] * len(batches) == [changed(batch, TWO, set())[1].counted for batch in batches]
    counted = Batch(topics={1: topic(1, counted=True)}, rows={1: []})
    assert changed(counted, TWO, set())[1].counted
    assert {} == changed(Batch(), TWO, set())


def test_channels_come_and_go() -> None:
    """Those that are gone in the batch are left out, whatever it tells of them; nothing is lost."""
    new = {
        number: StoredChannel(number=number, topic=1, name=f"c{number}", since=number)
        for number in (7, 9)
    }
    after = changed(Batch(channels=new, gone_channels={7: 1, 3: 2}), TWO, set())
    assert {8: 5, 9: 9} == after[1].channels
    assert {7: 0, 8: 5} == TWO[1].channels


def test_what_is_told_of_unknown_topics() -> None:
    """It is left out; but for messages and channels there must be a topic."""
    batch = Batch(copies={(3, 7): {}}, emptied=[(3, 0, 1)], unheld={3}, gone_channels={9: 3})
    assert {} == changed(batch, TWO, set())
    channel = StoredChannel(number=9, topic=3, name="c")
    for wrong in (Batch(rows={3: []}), Batch(channels={9: channel})):
        with pytest.raises(KeyError):
            changed(wrong, TWO, set())
        wrong.gone_topics[3] = None
        assert {} == changed(wrong, TWO, set())


def test_what_is_told_of_a_topic_that_is_gone() -> None:
    """Nothing is left of it."""
    batch = Batch(topics={1: topic(1)}, rows={1: [row(1)]}, gone_topics={1: None})
    assert {} == changed(batch, TWO, set())
    assert {} == messages(batch, {})


def told(
    copies: dict[int | None, dict[int, Copy]], rows: list[Row], known: Known = TWO[1]
) -> tuple[set[int], list[int]]:
    """Return what is finished, and what is left to be written."""
    batch = Batch(rows={1: rows}, copies={(1, one): noted for one, noted in copies.items()})
    found = messages(batch, {1: known})[1]
    return found.finished, [row[0] for row in found.rows]


def test_what_all_channels_have_done_with_is_finished() -> None:
    """New messages of this kind are not written; what only some have done with is."""
    rows = [row(identity) for identity in range(1, 6)]
    gone: dict[int, Copy] = dict.fromkeys((1, 2, 3), GONE)
    assert ({2, 3}, [1, 4, 5]) == told({7: gone, 8: {2: GONE, 3: GONE, 1: (1, None)}}, rows)
    assert (set(), [1, 2, 3, 4, 5]) == told({7: gone}, rows)
    assert ({1, 2, 3}, [4, 5]) == told({7: gone}, rows, Known(1, channels={7: 0}))
    assert (set(), [1, 2, 3, 4, 5]) == told({7: gone, 9: gone}, rows), "9 is no channel of it"
    assert (set(), [1, 2, 3, 4, 5]) == told({}, rows, Known(1))


def test_what_is_meant_for_one_is_finished_with_that() -> None:
    """Whatever others have done."""
    rows: list[Row] = [(one, 1, None, only, None, b"x") for one, only in ((1, 7), (2, 7), (3, 8))]
    assert ({1}, [2, 3]) == told({7: {1: GONE}, 8: {2: GONE}}, rows)


def test_what_the_topic_has_done_with_is_finished() -> None:
    """Without a look at the channels."""
    assert ({2}, [1]) == told({None: {2: GONE, 1: (1, None)}}, [row(1), row(2)])
