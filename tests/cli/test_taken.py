"""What a file has already."""

from pathlib import Path

from storefiles import change

import nsqlite
from nsqlite.cli.taken import Taken
from nsqlite.store.schema import OWN


def test_it_finds_what_is_there(tmp_path: Path) -> None:
    """It knows the ids of all topics, and whether any topic is to be forgotten."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        topics = [broker.topic(f"topic{number}") for number in range(OWN + 2)]
        ids = [int(topic.put(b"tea"), 16) for topic in topics]
        with Taken(str(path)) as taken:
            for identity in ids:
                assert identity == taken.find_common([ids[0] - 1, identity, ids[-1] + 1])
            assert taken.find_common([ids[0] - 1, ids[-1] + 1]) is None
            assert not taken.has_gone_topics()
    change(path, "UPDATE topic SET gone = 1 WHERE number = 2")
    with Taken(str(path)) as taken:
        assert taken.has_gone_topics()
