"""What a file has already."""

from pathlib import Path

from storefiles import change

import nsqlite
from nsqlite.cli.taken import Taken


def test_it_finds_what_is_there(tmp_path: Path) -> None:
    """It knows the topics from a number on, the ids of each, and whether any is to be forgotten."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        with Taken(str(path)) as taken:
            assert [] == taken.topics_from(0)
        orders = broker.topic("orders")
        broker.topic("empty")
        ids = [int(one, 16) for one in orders.put_many([b"tea", b"jam", b"eggs"])]
        with Taken(str(path)) as taken:
            assert ([1, 2], [2]) == (taken.topics_from(1), taken.topics_from(2))
            assert (ids[0], ids[-1]) == taken.span(1)
            assert (0, 0) == taken.span(2)
            assert ids[1] == taken.find_common(1, [ids[0] - 1, ids[1], ids[2] + 1])
            assert taken.find_common(1, [ids[0] - 1, ids[2] + 1]) is None
            assert taken.find_common(2, ids) is None
            assert not taken.has_gone_topics()
    change(path, "UPDATE topic SET gone = 1 WHERE number = 2")
    with Taken(str(path)) as taken:
        assert taken.has_gone_topics()
        assert [1] == taken.topics_from(1)
