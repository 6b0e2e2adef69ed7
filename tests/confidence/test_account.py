"""The account of a scan: its sums, and when it is no evidence."""

from dataclasses import replace

import pytest

from include.confidence.account import Account
from include.confidence.policy import Unproven

SOUND = Account(
    listed=100, repeats=5, refused=2, compared=93, live=98, equal=80, differing=4, surplus=5, young=1, unproven=3,
    out_of_scope=5, missing=5, missing_unproven=2,
)  # fmt: skip


def test_a_sound_account_is_evidence_and_says_how_much_it_proves():
    assert Unproven().no_evidence({"orders": SOUND}) == ""
    assert (SOUND.rows, SOUND.not_proven, SOUND.proven, SOUND.looked_at) == (98, 5, 93, 89)


@pytest.mark.parametrize("end", ["listed", "repeats", "refused", "compared"])
def test_a_row_of_the_source_without_an_end_fails(end):
    account = replace(SOUND, **{end: getattr(SOUND, end) + 1})
    assert "orders: the source listed" in Unproven().no_evidence({"lines": SOUND, "orders": account})


@pytest.mark.parametrize("end", ["live", "equal", "differing", "surplus", "young", "unproven", "out_of_scope"])
def test_a_row_of_the_copy_without_an_end_fails(end):
    account = replace(SOUND, **{end: getattr(SOUND, end) + 1})
    assert "orders: the copy has" in Unproven().no_evidence({"orders": account, "lines": SOUND})


@pytest.mark.parametrize(
    ("rows", "unproven", "evidence"),
    [(15, 1, True), (15, 7, True), (15, 8, False), (15, 15, False), (1, 1, False), (40, 20, True), (150, 21, False),
     (1000, 100, True), (1000, 101, False)],
)  # fmt: skip
def test_too_many_unproven_rows_are_no_evidence(rows, unproven, evidence):
    copy = Account(live=rows, equal=rows - unproven, unproven=unproven)
    source = Account(listed=rows, refused=unproven, compared=rows - unproven, missing=rows, missing_unproven=unproven)
    for account in (copy, source):
        assert (Unproven().no_evidence({"orders": account}) == "") is evidence
        # Rows that only the list's total claims change nothing.
        assert (Unproven().no_evidence({"orders": replace(account, unseen=10_000)}) == "") is evidence


@pytest.mark.parametrize(("rows", "unproven", "evidence"), [(1, 1, True), (20, 20, True), (21, 21, False)])
def test_a_few_nested_rows_may_all_be_of_one_record(rows, unproven, evidence):
    lines = Account(live=rows, equal=rows - unproven, unproven=unproven)
    accounts = {"orders": SOUND, "lines": lines}
    assert (Unproven().no_evidence(accounts, nested=["lines"]) == "") is evidence
    assert Unproven().no_evidence(accounts).startswith("lines: ")
