"""Every drill is played by a test, and every test that says so plays a drill that there is."""

from collections import Counter

from stack.settings import REPOSITORY
from tests.drills.catalog import all_drills
from tests.drills.marks import played


def test_every_drill_is_played_and_every_mark_names_one():
    assert set(played(REPOSITORY)) == {drill.name for drill in all_drills()}


def test_names_and_titles_are_given_once():
    for given in (Counter(drill.name for drill in all_drills()), Counter(drill.title for drill in all_drills())):
        assert [name for name, count in given.items() if count > 1] == []


def test_every_text_is_of_whole_sentences():
    texts = [text for drill in all_drills() for text in (drill.seen, drill.click, drill.holds)]
    assert [text for text in texts if not text.endswith(".")] == []
