"""What people call the two sides of a source, and what the answers to a question mean for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sides:
    """The words of a source for questions and pages.

    - `copy`: where syncs and repairs write; `source`: what the other side of a planned change shows. Both can follow a
      verb and stand above a column.
    - `after_resume`: what the writer does with drift that was not repaired
    - `after_repair`: what a repair leaves behind, and when not to repair
    - `counts`: what the counts of syncs and repairs are, if not the rows that the audit shows
    """

    copy: str = "in the copy"
    source: str = "at the source"
    after_resume: str = (
        "it brings what changes at the source, right or wrong. Of what is gone at the source it deletes only what is"
        " reported as deleted, or what a parent that has changed no longer has. The rest stays until a repair: by an"
        " answer to such a question, or by a run with `dry_run` off whose repair is within the limits"
    )
    after_repair: str = "The copy then has what the source has now: don't repair if the source is what is wrong."
    counts: str = ""

    @property
    def headings(self) -> tuple[str, str]:
        """The two sides as the headings of columns."""
        return tuple(f"{side[:1].upper()}{side[1:]}" for side in (self.copy, self.source))
