"""The progress bar: when it is shown, and what it needs."""

import io
import sys

import pytest

from nsqlite.cli.failure import CommandFailed
from nsqlite.cli.progress import progress


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rich not installed."""
    monkeypatch.setitem(sys.modules, "rich.console", None)


@pytest.mark.parametrize("total", [2000, None])
def test_it_is_shown_on_a_terminal(
    total: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal it shows what is done and how much, and nothing on stdout."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("export", "lines", total, None) as tell:
        tell(1000)
        tell(234)
    assert "export" in terminal.getvalue()
    assert "1,234 lines" in terminal.getvalue()
    assert "" == capsys.readouterr().out


@pytest.mark.parametrize("wanted", [None, False])
def test_it_is_silent_where_there_is_no_terminal(
    wanted: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where stderr is no terminal nothing is shown unless it is asked for."""
    with progress("export", "lines", 10, wanted) as tell:
        tell(10)
    assert ("", "") == capsys.readouterr()


def test_it_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked for is shown also where stderr is no terminal."""
    with progress("export", "lines", 10, wanted=True) as tell:
        tell(10)
    out, err = capsys.readouterr()
    assert "" == out
    assert "10 lines" in err


def test_without_rich_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rich is not installed a terminal shows nothing."""
    without_rich(monkeypatch)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("export", "lines", 10, None) as tell:
        tell(10)
    assert "" == terminal.getvalue()


def test_without_rich_it_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for it without rich is told what to install."""
    without_rich(monkeypatch)
    with pytest.raises(CommandFailed) as caught, progress("export", "lines", 10, wanted=True):
        pass
    text = "--progress needs rich, which is not installed: pip install 'nsqlite[cli]'"
    assert text == str(caught.value)


def test_it_is_silent_where_stderr_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program was started without stderr nothing is shown, nor is it missed."""
    monkeypatch.setattr(sys, "stderr", None)
    for wanted in (True, None):
        with progress("export", "lines", 10, wanted) as tell:
            tell(10)


def test_it_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that has gone, or takes no more, does not end what is done."""

    class Gone(Terminal):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    with progress("export", "lines", 10, None) as tell:
        tell(10)
