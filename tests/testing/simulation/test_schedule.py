"""Schedules: their text, what is drawn, and how they are made smaller."""

from collections.abc import Mapping

import hypothesis
import pytest
from hypothesis import strategies

from nsqlite.errors import InvalidOption
from nsqlite.testing import Schedule, schedules
from nsqlite.testing.simulation.schedule import Choices, Pairs, shrunk

PAIRS = strategies.dictionaries(strategies.integers(0, 50), strategies.integers(1, 4), max_size=8)


class TestSchedule:
    @hypothesis.given(PAIRS)
    def test_its_text_makes_it(self, pairs: dict[int, int]) -> None:
        """What is read from its text is equal, and so is its hash."""
        schedule = Schedule.of(pairs)
        again = Schedule(str(schedule))
        assert (again, hash(again)) == (schedule, hash(schedule))

    def test_it_shows_what_makes_it(self) -> None:
        """Pairs stand in the order of their places, and a 0 says nothing."""
        assert "nsqlite.testing.Schedule('5:1 12:3')" == repr(Schedule("12:3 5:1 7:0"))

    def test_it_shows_that_it_need_not_be_made_whole(self) -> None:
        """As one that Hypothesis has drawn; so its example can be pasted."""
        shown = "nsqlite.testing.Schedule('5:1', exact=False)"
        assert shown == repr(Schedule.of({5: 1}, exact=False)) == repr(Schedule("5:1", exact=False))

    def test_it_is_unlike_its_text(self) -> None:
        """It equals schedules only."""
        assert Schedule("5:1") != "5:1"

    @pytest.mark.parametrize("text", ["5", "5:", ":1", "a:1", "5:-1", "5=1", 5])
    def test_it_refuses_what_is_none(self, text: str) -> None:
        """The error shows what it looks like."""
        with pytest.raises(InvalidOption) as caught:
            Schedule(text)
        assert ("replay", text) == (caught.value.option, caught.value.value)
        assert 'pairs of a choice and its outcome, as "5:1 12:3"' in str(caught.value)

    def test_whether_it_is_exact_is_true_or_false(self) -> None:
        """A text would count as true."""
        with pytest.raises(InvalidOption, match="exact must be True or False, not 'no'"):
            Schedule(exact="no")  # type: ignore[arg-type]  # on purpose


class TestChoices:
    def test_they_follow_a_schedule(self) -> None:
        """Where that says nothing it is 0, and a number beyond the last means the last."""
        choices = Choices({1: 1, 2: 7})
        assert [0, 1, 2, 0] == [choices.choose(3) for _ in range(4)]
        assert (4, {1: 1, 2: 2}) == (choices.count, choices.made)

    def test_they_tell_what_was_not_chosen(self) -> None:
        """What was never reached, and what had no such alternative."""
        choices = Choices({0: 1, 1: 7, 4: 1})
        for _ in range(3):
            choices.choose(3)
        assert (
            "choice 1 could not be 7, its last alternative is 2; choice 4 was never reached, there"
            " were 3"
        ) == choices.missed()

    def test_one_possibility_is_no_choice(self) -> None:
        """It has no place."""
        choices = Choices({0: 1})
        assert (0, 0, 1) == (choices.choose(1), choices.count, choices.choose(2))

    def test_the_same_seed_draws_the_same(self) -> None:
        """Another one does not."""

        def drawn(seed: str) -> list[int]:
            choices = Choices(None, seed)
            return [choices.choose(4) for _ in range(100)]

        assert drawn("0/1") == drawn("0/1")
        assert drawn("0/1") != drawn("1/1")

    def test_most_of_what_is_drawn_is_0(self) -> None:
        """A schedule disturbs a few things."""
        choices = [Choices(None, str(seed)) for seed in range(100)]
        drawn = [one.choose(3) for one in choices for _ in range(50)]
        assert 3000 < drawn.count(0) < 4900


class TestShrunk:
    def test_it_leaves_out_what_does_not_matter(self) -> None:
        """One pair is left of those that are needed, with the lowest number."""

        def fails(pairs: Pairs) -> Pairs | None:
            return pairs if any(value >= 2 for value in pairs.values()) else None

        assert {0: 2} == shrunk({3: 1, 5: 4, 9: 2, 12: 1}, fails, 500)[0]

    def test_it_moves_what_is_left_to_the_front(self) -> None:
        """Together or alone."""

        def fails(pairs: Pairs) -> Pairs | None:
            places = sorted(pairs)
            return pairs if len(places) == 2 and places[1] - places[0] >= 3 else None

        assert {0: 1, 3: 1} == shrunk({30: 1, 50: 1}, fails, 500)[0]

    def test_it_finds_what_is_later_with_less(self) -> None:
        """A choice that called others off is not needed if the next ones are moved."""

        def fails(pairs: Pairs) -> Pairs | None:
            return pairs if pairs in ({2: 1, 3: 1}, {9: 1}) else None

        assert {9: 1} == shrunk({2: 1, 3: 1}, fails, 500)[0]

    def test_it_takes_what_was_really_chosen(self) -> None:
        """Which may be less than what it was told."""

        def fails(pairs: Pairs) -> Pairs | None:
            made: Mapping[int, int] = {place: 1 for place in pairs if place < 5}
            return made if 0 in made else None

        assert {0: 1} == shrunk({0: 1, 4: 3, 7: 2}, fails, 500)[0]

    def test_it_tries_no_more_than_it_was_told(self) -> None:
        """And says how many that were."""
        assert 7 == shrunk(dict.fromkeys(range(20), 4), lambda _pairs: None, 7)[1]

    def test_it_ends_when_nothing_is_smaller(self) -> None:
        """The empty schedule is the smallest."""
        assert ({}, 0) == shrunk({}, lambda pairs: pairs, 500)


class TestSchedules:
    def test_a_number_of_disturbances_is_checked(self) -> None:
        """Before Hypothesis draws one."""
        with pytest.raises(InvalidOption, match="max_disturbances must be a whole number of at"):
            schedules(max_disturbances=-1)

    @hypothesis.given(schedules(max_disturbances=2))
    def test_hypothesis_draws_them(self, schedule: Schedule) -> None:
        """They disturb no more than was said, and may choose what no run has."""
        assert len(schedule.pairs) <= 2
        assert not schedule.exact
