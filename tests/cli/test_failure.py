"""The line that ends a command."""

from nsqlite.cli.failure import why


def test_what_the_system_said_is_told_in_words() -> None:
    """An OSError is told by its words, or by its text if it has none."""
    assert "No space left on device" == why(OSError(28, "No space left on device"))
    assert "odd" == why(OSError("odd"))
