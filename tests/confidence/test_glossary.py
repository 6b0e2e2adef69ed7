"""The metrics' meanings stand in one place: docs/glossary.md has them as the code does."""

import re

from include.confidence.glossary import EVERY_SCAN, explain
from include.sources import REGISTRY, get_source
from include.sources.mirror.metrics import METRICS, NESTED, VIOLATIONS
from stack.settings import REPOSITORY

TEXTS = {name: get_source(name).metric_texts for name in REGISTRY}


def test_page_has_each_meaning_as_the_code_has_it():
    page = (REPOSITORY / "docs" / "glossary.md").read_text().partition("### Every scan")[2]
    told = re.findall(r"^\| `(.*?)` \| (.*?) \|$", page, re.MULTILINE)
    patterns = {f"<table>_{what}": text for what, text in NESTED.items()}
    patterns |= {"<check>_violations": VIOLATIONS, "growth.<metric>": explain("growth.<metric>", {})}
    known = {*EVERY_SCAN.items(), *METRICS.items(), *patterns.items()}
    known |= {pair for texts in TEXTS.values() for pair in texts.items()}
    # Of mirrored sources it has a pattern in place of each table and rule.
    named = [pair for pair in known if not (pair[1] in patterns.values() and pair not in patterns.items())]
    assert sorted(told) == sorted(named)


def test_each_meaning_is_one_sentence():
    for texts in (EVERY_SCAN, *TEXTS.values()):
        assert [text for text in texts.values() if text.count(".") != 1 or not text.endswith(".")] == []


def test_explains_growth_by_its_metric():
    assert "level of rows_differing" in explain("growth.rows_differing", {})
    assert explain("nothing_known", {}) == ""
