"""What the rows of a plan have in common, as facts in words. `find_patterns.py` finds them."""

from dataclasses import dataclass
from typing import Literal

# The share of the planned rows for which a fact has to hold.
SHARE = 0.5

Operation = Literal["insert", "update", "delete"]
Kind = Literal["value", "day", "folder", "range", "columns", "edited", "sync", "page", "parents"]


@dataclass(frozen=True)
class Pattern:
    """A fact about `planned` of all `of` planned rows of an operation, and about `present` of the `rows` looked at.

    - `kind`: a column has one `value`, one day, one folder (all up to the last slash), or is in the range from `value`
      to `until`; the same `column`s (joined by commas) differ; the rows were `edited` in the copy by something other
      than a sync or repair; one sync wrote the rows; they stand on one page of the list; they
      are all rows of `value` `parents`, of `until` that the column names
    - `value`: as text; None for null, and if it is `hidden` since it may be about a person; of `columns` how they
      differ; of a folder with `…` for each step that may be about a person
    - `present`, `rows`: 0 for `columns`, `edited` and `parents`, which are not counted in the other rows
    - `score`: how unlikely it is by chance (the natural logarithm)
    """

    table: str
    operation: Operation
    kind: Kind
    column: str
    value: str | None
    planned: int
    of: int
    until: str | None = None
    hidden: bool = False
    present: int = 0
    rows: int = 0
    score: float = 0.0

    def __str__(self) -> str:
        return f"{self.planned:,} of {self.of:,} rows to {self.operation} {self._fact()}{self._elsewhere()}"

    def _elsewhere(self) -> str:
        """Return which share of the rows with the fact these are."""
        if not self.rows:
            return ""
        share = "all" if self.planned == self.present else f"{self.planned:,} of the"
        return f". These are {share} {self.present:,} such rows among the {self.rows:,} that were looked at"

    def _fact(self) -> str:
        match self.kind:
            case "sync":
                return f"were last written by sync {self.value}"
            case "page":
                return f"stand on page {self.value} of the list"
            case "day":
                return f"have {self.column} on {self.value}"
            case "parents":
                return f"are all rows of {self.value} different {self.column}, of {self.until} that were looked at"
            case "edited":
                return "were changed in the copy by something other than a sync or repair, such as an UPDATE by hand"
            case "range" if self.hidden:
                return f"have {self.column} in one range"
            case "range":
                return f"have {self.column} between {self.value} and {self.until}"
            case "columns":
                return f"differ in {self.column} only" + (f", {self.value}" if self.value else "")
            case "folder":
                return f"share one folder of {self.column}" + ("" if self.hidden else f", {self.value}")
        if self.hidden:
            return f"share one value of {self.column}"
        return f"have no {self.column}" if self.value is None else f"have {self.column} {self.value}"
