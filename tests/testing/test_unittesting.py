"""A fake broker for tests of unittest, and what such a test leaves behind."""

import asyncio
import re
import socket
import unittest
from typing import Any, ClassVar

import pytest

import nsqlite
from nsqlite import App, Consumer, aio
from nsqlite.testing import FakeBroker, NSQLiteMixin, no_leaks

pytestmark = pytest.mark.nsqlite(leaks=False)
"""What is left behind here is found here."""


def run(case: type[unittest.TestCase]) -> list[str]:
    """Run the tests of a class, and return how those failed that did: the last lines of each."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun
    return [text for _, text in (*result.errors, *result.failures)]


def test_what_a_test_asks_for() -> None:
    """It has a broker with its clock, an app's workers and an address, until its end."""
    kept: list[Any] = []

    class Case(NSQLiteMixin, unittest.TestCase):
        nsqd_options: ClassVar[dict[str, Any]] = {"max_rdy_count": 7}

        def test_it(self) -> None:
            app = App()
            app.handler("orders", "billing")(print)
            assert self.run_app(app) is app
            assert self.broker.clock is self.clock
            assert self.nsqd is self.nsqd
            assert (self.broker, 7) == (self.nsqd.broker, self.nsqd._nsqd.options.max_rdy_count)
            socket.create_connection((self.nsqd.host, self.nsqd.port)).close()
            kept.extend((self.broker, app, self.nsqd))

        def test_nothing(self) -> None:
            assert self._broker is None

    assert [] == run(Case)
    broker, app, server = kept
    assert (True, []) == (broker._closed, app.workers)
    with pytest.raises(nsqlite.Closed):
        server.tcp_address  # noqa: B018 - it raises


def test_coroutine_functions() -> None:
    """Tests that are coroutine functions have the same."""

    class Case(NSQLiteMixin, unittest.IsolatedAsyncioTestCase):
        mode = "inline"

        async def test_it(self) -> None:
            orders = self.broker.topic("orders")
            consumer = aio.Consumer(orders.channel("billing"))
            await aio.put(orders, b"order 1", delay=5)
            self.clock.advance(5)
            with await consumer.get() as message:
                assert (b"order 1", "inline") == (message.body, self.broker.mode)

    assert [] == run(Case)


def test_an_app_in_the_loop_of_a_test(caplog: pytest.LogCaptureFixture) -> None:
    """Its handlers may end in that loop when the test is over."""
    ended: list[object] = []

    class Case(NSQLiteMixin, unittest.IsolatedAsyncioTestCase):
        mode = "real"

        def start(self) -> None:
            app = App()

            @app.handler("mails", "send")
            async def send(message: nsqlite.Message[Any]) -> None:
                for _ in range(1000):
                    await asyncio.sleep(0)
                ended.append(message.body)

            self.run_app(app)
            self.broker.topic("mails").put(b"mail 1")

        async def test_it(self) -> None:
            self.start()
            await asyncio.sleep(0)

        def test_in_a_loop_of_its_own(self) -> None:
            async def test() -> None:
                self.start()
                await self.broker.until_idle()

            asyncio.run(test())

    assert [] == run(Case)
    assert [b"mail 1"] * 2 == ended
    assert [] == [one.message for one in caplog.records if one.levelname == "ERROR"]


def hold(broker: FakeBroker) -> None:
    consumer = Consumer(broker.topic("orders").channel("billing"))
    broker.topic("orders").put(b"order 1")
    consumer.get()


def test_what_is_left_behind_fails_the_test() -> None:
    """It is told as for every test, unless the class says that it does not count."""

    class Case(NSQLiteMixin, unittest.TestCase):
        def test_it(self) -> None:
            hold(self.broker)

    class Quiet(Case):
        leaks = "stores"

    (text,) = run(Case)
    assert "AssertionError: left behind: messages\n  messages: " in text
    assert [] == run(Quiet)


def test_what_is_no_app() -> None:
    """Only an app can be run."""

    class Case(NSQLiteMixin, unittest.TestCase):
        def test_it(self) -> None:
            self.run_app(5)  # type: ignore[arg-type]

    (text,) = run(Case)
    assert "InvalidOption: app must be an App, not 5" in text


def test_it_stands_first() -> None:
    """After the class of unittest, which would not call it, it is refused."""
    text = "NSQLiteMixin must stand before the class of unittest: class Case(NSQLiteMixin, ...)"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):

        class Case(unittest.TestCase, NSQLiteMixin):  # type: ignore[misc]
            pass


def test_its_set_up_must_be_called() -> None:
    """A test whose `setUp` calls no other is told so when it asks for something."""

    class Case(NSQLiteMixin, unittest.TestCase):
        def setUp(self) -> None: ...

        def test_it(self) -> None:
            self.clock.advance(5)

    (text,) = run(Case)
    assert "Closed: Case is not set up: its setUp must call super().setUp()\n" in text


def test_a_failed_assertion_shows_the_test() -> None:
    """It shows the line of the test, and none of nsqlite."""

    class Case(NSQLiteMixin, unittest.TestCase):
        def test_history(self) -> None:
            self.broker.history.assert_published("orders")

        def test_block(self) -> None:
            with no_leaks():
                hold(self.broker)

    for text in run(Case):
        assert "test_unittesting.py" in text
        assert "nsqlite/testing" not in text.partition("AssertionError")[0]


def test_a_test_that_fails_says_both() -> None:
    """A failure and what is left behind are two."""

    class Case(NSQLiteMixin, unittest.TestCase):
        def test_it(self) -> None:
            hold(self.broker)
            raise LookupError

    assert [True, True] == sorted("Error" in text for text in run(Case))
