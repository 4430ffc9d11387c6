"""The examples run, print what they say, and teach in order."""

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
FILES = sorted(path.name for path in EXAMPLES.glob("*.py"))
LESSONS = [name for name in FILES if name[0].isdigit()]
SOLUTIONS = sorted(f"solutions/{path.name}" for path in EXAMPLES.glob("solutions/*.py"))
WITHOUT_EXERCISES = {
    "04_at_least_once_broken.py": "the fixed one has them",
    "06_time_out.py": "the touch has them",
    "18_threads.py": "the outcome is chance",
    "19_asyncio.py": "the same",
    "20_web_app.py": "a program of its own",
    "21_operate.py": "the same",
}
STATISTICS = EXAMPLES / "text_statistics.py"


def run(path: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own files
        [sys.executable, "-W", "error", path, *arguments],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
        timeout=60,
    )


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse((EXAMPLES / name).read_text("utf-8"))) or ""


def promised(name: str) -> str:
    """Return the indented block after "It prints:"."""
    _, _, rest = f"{docstring(name)}\n".partition("It prints:\n\n")
    block = re.match(r"(?: .*\n|\n)*", rest)
    assert block
    return textwrap.dedent(block[0]).rstrip("\n") + "\n"


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def statistics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "argv", [STATISTICS.name])
    return load(STATISTICS)


def children_seconds() -> float:
    """Return the processor time of the programs that have run."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("name", FILES + SOLUTIONS)
def test_example_prints_what_its_docstring_shows(name: str) -> None:
    """An example succeeds soon, warns of nothing and prints the block in its docstring."""
    before = children_seconds()
    result = run(EXAMPLES / name)
    assert children_seconds() - before < 2  # on a busy machine; with nobody else less than 1
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout == promised(name)


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_is_short(name: str) -> None:
    """A numbered lesson has fewer than 75 lines, its exercises included."""
    assert len((EXAMPLES / name).read_text("utf-8").splitlines()) < 75


@pytest.mark.parametrize("name", LESSONS)
def test_lesson_has_two_exercises_with_solutions(name: str) -> None:
    """A lesson has two exercises, each with a solution, or a reason why not."""
    count = 0 if name in WITHOUT_EXERCISES else 2
    assert len(re.findall(r"^\d\. ", docstring(name), re.MULTILINE)) == count
    stem = name.removesuffix(".py")
    expected = [f"solutions/{stem}_{number}.py" for number in range(1, count + 1)]
    assert [path for path in SOLUTIONS if path.startswith(f"solutions/{stem}_")] == expected


@pytest.mark.parametrize("name", FILES)
def test_example_says_what_to_watch(name: str) -> None:
    """Every example's docstring tells the reader what to watch."""
    assert re.search(r"^Watch ", docstring(name), re.MULTILINE)


def test_lessons_lead_from_one_to_the_next() -> None:
    """Whoever follows the last line of each docstring reads all examples in their order."""
    chain = [FILES[0]]
    while (EXAMPLES / (following := docstring(chain[-1]).rpartition("Next: ")[2])).exists():
        chain.append(following)
    assert chain == FILES


def code(name: str) -> list[str]:
    return (EXAMPLES / name).read_text("utf-8").split('"""\n', 1)[1].splitlines()


def test_time_out_is_fixed_by_one_line() -> None:
    """The lesson of the touch has the code of the time-out and one line more."""
    touch = code("07_touch.py")
    touch.remove("parcel.touch()")
    assert code("06_time_out.py") == touch


def test_at_least_once_is_fixed_by_four_lines() -> None:
    """The idempotent handler is the broken one that remembers what it has done."""
    broken = code("04_at_least_once_broken.py")
    fixed = code("05_at_least_once_fixed.py")
    assert [line for line in fixed if line not in broken] == [
        "done: set[str] = set()  # the ids of the messages whose work is done",
        "    if message.id in done:",
        "        return",
        "    done.add(message.id)",
    ]
    assert [line for line in broken if line not in fixed] == []


# The statistics of a text file


def log_lines(count: int) -> list[str]:
    return [
        f"10.0.0.{number % 5} GET /page/{number % 13} {200 if number % 4 else 404}"
        for number in range(1, count + 1)
    ]


def test_statistics_of_a_log_are_right(tmp_path: Path) -> None:
    """A log of 5,000 lines is counted as another program counts it."""
    lines = log_lines(5000)
    path = tmp_path / "access.log"
    path.write_text("\n".join(lines), "utf-8")
    counts = Counter(re.findall(r"\w+", "\n".join(lines).lower()))
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    result = run(STATISTICS, path)
    assert (result.stderr, result.returncode) == ("", 0)
    printed = result.stdout.splitlines()
    assert printed[:3] == [
        "access.log",
        "lines: 5000, requeued: 714",
        f"words: {counts.total()}, different: {len(counts)}, most frequent:",
    ]
    assert printed[3:6] == [f"    {word}: {count}" for word, count in top]
    assert printed[-1] == "A plain loop gives the same result."


@pytest.mark.parametrize(
    ("text", "lines", "different"),
    [
        ("", 0, 0),
        ("\n", 1, 0),
        ("\n\n\n", 3, 0),
        ("one", 1, 1),
        ("one\r\ntwo\r\n", 2, 2),
        ("\ufeffone\n", 1, 1),
        ("Straße STRASSE\nπ Ὀδυσσεύς 東京\n🙂\n", 3, 4),
        ("x" * 300_000 + "\n", 1, 1),
        ("a b c d e f g\n" * 14, 14, 7),
    ],
    ids=["empty", "blank", "blanks", "no newline", "crlf", "mark", "unicode", "long", "repeated"],
)
def test_statistics_take_any_text(tmp_path: Path, text: str, lines: int, different: int) -> None:
    """Whatever the text is, its lines and words are counted."""
    path = tmp_path / "text"
    path.write_text(text, "utf-8", newline="")
    result = run(STATISTICS, path)
    assert (result.stderr, result.returncode) == ("", 0)
    assert f"lines: {lines}, requeued: {lines // 7}\n" in result.stdout
    assert f"different: {different}," in result.stdout


def test_statistics_can_be_printed_anywhere(tmp_path: Path) -> None:
    """Where the output cannot show a word, it shows its code."""
    path = tmp_path / "text"
    path.write_text("π\n", "utf-8")
    result = subprocess.run(  # noqa: S603 - our own files
        [sys.executable, STATISTICS, path],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        timeout=60,
    )
    assert (result.stderr, result.returncode) == (b"", 0)
    assert b"    \\u03c0: 1\n" in result.stdout


def test_statistics_refuse_bad_arguments(tmp_path: Path) -> None:
    """A bad argument gets one line that tells why, and status 2."""
    missing = tmp_path / "missing"
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    zeros = tmp_path / "zeros"
    zeros.write_bytes(b"one\0two\n")
    late = tmp_path / "late"
    late.write_bytes(b"a line\n" * 5000 + b"\xff\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    expected: dict[tuple[Path | str, ...], str] = {
        (missing,): f"'{missing}': No such file or directory",
        (tmp_path,): f"'{tmp_path}': not a regular file",
        (pipe,): f"'{pipe}': not a regular file",
        (binary,): f"'{binary}': not UTF-8 text",
        (zeros,): f"'{zeros}': not UTF-8 text",
        (late,): f"'{late}': not UTF-8 text",
        ("x" * 5000,): f"'{'x' * 5000}': File name too long",
        (binary, zeros): f"unrecognized arguments: {zeros}",
        ("--bogus",): "unrecognized arguments: --bogus",
    }
    for arguments, text in expected.items():
        result = run(STATISTICS, *arguments)
        assert result.stderr == f"text_statistics.py: {text}\n"
        assert (result.stdout, result.returncode) == ("", 2)


def test_statistics_find_out_a_wrong_result(
    statistics: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If a part gets lost, the comparison with the plain loop tells, and the status is 1."""
    monkeypatch.setattr(statistics.Words, "merge", lambda *_: None)
    assert statistics.main() == 1
    assert capsys.readouterr() == (
        "",
        "text_statistics.py: the result is not the one of a plain loop\n",
    )


def test_statistics_end_when_a_consumer_dies(
    statistics: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the work fails in a way that no second attempt helps, the program ends with that error."""

    def fail(_: object) -> None:
        raise RuntimeError("no use")

    monkeypatch.setattr(statistics, "MAX_DEPTH", 2)
    monkeypatch.setattr(statistics, "glitch", fail)
    with pytest.raises(RuntimeError, match="no use"):
        statistics.main()
