"""Every drill is played by a test, and every test that says so plays a drill that there is."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

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


# Words of others: Airflow's, Postgres'.
OTHERS = {
    "Only failed",
    "server closed the connection unexpectedly",
    "connection refused",
    "too many connections for role",
}


def said(path: Path) -> Iterator[str]:
    """The texts in a file of the product; what is filled in is left out."""
    if path.suffix == ".html":
        yield path.read_text()
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "<>" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_message_that_is_quoted_is_one():
    files = [path for folder in ("include", "plugins", "dags") for path in (REPOSITORY / folder).rglob("*.*")]
    texts = [text for path in files if path.suffix in (".py", ".html") for text in said(path)]
    quoted = {
        quote
        for drill in all_drills()
        for text in (drill.seen, drill.click, drill.holds)
        for quote in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", text)
    }
    unknown = {
        quote
        for quote in quoted - OTHERS
        if not all(any(part in text for text in texts) for part in re.split(r" ?\.\.\. ?|`<\w+>`", quote) if part)
    }
    assert unknown == set()
    assert len(quoted) > 40
