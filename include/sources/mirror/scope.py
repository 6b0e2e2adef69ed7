"""What a scan looks at: all of an entity, or some pages of its list."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from include.sources.base import ScanRefused
from include.warehouse.staging import Stage


@dataclass(frozen=True)
class Scope:
    """The part of an entity that a scan looks at.

    - `page_start`: the first page, from 1
    - `page_end`: the last page, 0 for the list's last
    - `progress_every`: pages between two log lines, 0 for a line at the end only
    - `not_in_api`: whether to look for rows of the copy that the lists don't show. Only a scan of all pages can.
    - `filtered`: a text that names the filter of the lists; empty if there is none

    Raises ScanRefused where `not_in_api` is asked of single pages.
    """

    page_start: int = 1
    page_end: int = 0
    progress_every: int = 250
    not_in_api: bool = True
    filtered: str = ""

    def __post_init__(self) -> None:
        if self.partial and self.not_in_api:
            raise ScanRefused(
                f"compute_db_not_in_api needs a whole scan, but only {self} were asked for:"
                " untick it, or leave page_start at 1 and page_end at 0"
            )

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "Scope":
        """Return the scope that the params of a run ask for. Sources without page numbers have no params for pages."""
        return cls(
            page_start=params.get("page_start", 1),
            page_end=params.get("page_end", 0),
            progress_every=params["progress_every"],
            not_in_api=params.get("compute_db_not_in_api", True),
        )

    @property
    def first(self) -> int:
        return max(1, self.page_start)

    @property
    def partial(self) -> bool:
        """Whether only some pages are scanned."""
        return self.first > 1 or self.page_end > 0

    @property
    def whole(self) -> bool:
        """Whether the whole entity is scanned, with all pages and no filter."""
        return str(self) == "all"

    def final_page(self, stage: Stage) -> int:
        """Return the last page of the scan: the requested one, or the list's last if that comes first."""
        reached = self.first + stage.pull.pages - 1
        if stage.pull.complete:
            return reached
        last = max(stage.pull.total_pages or 0, reached)
        return min(self.page_end, last) if self.page_end else last

    def __str__(self) -> str:
        pages = f"pages {self.first}-{self.page_end or 'end'}" if self.partial else ""
        return ", ".join(filter(None, [self.filtered, pages])) or "all"
