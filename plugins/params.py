"""The fields of trigger forms: each kind of field, and fields that several DAGs share."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Param

from plugins.assets import FILTERS

# The sections of a form, in their order. A field without one comes first, and says what the run does.
HOW, AFTERWARDS = "How it works", "The writer afterwards"


def flag(default: bool, title: str, description: str, section: str | None = None) -> Param:
    """Return a checkbox."""
    return _field(default, title, description, section, type="boolean")


def number(
    default: int, title: str, description: str, section: str | None = None, *, least: int = 0, most: int | None = None
) -> Param:
    """Return a field for a whole number."""
    limits = {"minimum": least} | ({} if most is None else {"maximum": most})
    return _field(default, title, description, section, type="integer", **limits)


def choice(default: str, values: Sequence[str], title: str, description: str, section: str | None = None) -> Param:
    """Return a field for one of these values."""
    return _field(default, title, description, section, enum=list(values))


def needed_choice(values: Sequence[str], title: str, description: str) -> Param:
    """Return a field for one of these values, which a person has to choose."""
    return Param(type="string", title=title, description=description, enum=list(values))


def several(values: Sequence[str], title: str, description: str, section: str | None = None) -> Param:
    """Return a field for any number of these values, none by default."""
    # The form offers the examples; without them it wants one value a line.
    items, examples = {"type": "string", "enum": list(values)}, list(values)
    return _field([], title, description, section, type=["null", "array"], items=items, examples=examples)


def some_number(title: str, description: str, section: str | None = None, *, empty: str) -> Param:
    """Return a field for a whole number or nothing, which the form shows as `empty`."""
    return _field(None, title, description, section, type=["null", "integer"], values_display={"null": empty})


def some_text(title: str, description: str) -> Param:
    """Return a field for a text or nothing."""
    return Param(None, title=title, description=description, type=["null", "string"])


def some_uuid(title: str, description: str, section: str | None = None) -> Param:
    """Return a field for a UUID or nothing."""
    return _field(None, title, description, section, type=["null", "string"], format="uuid")


def some_choice(values: Sequence[str], title: str, description: str, section: str | None = None) -> Param:
    """Return a field for one of these values, or for any of them."""
    return _field(
        None,
        title,
        description,
        section,
        type=["null", "string"],
        enum=[None, *values],
        values_display={"null": "any"},
    )


def _field(default: Any, title: str, description: str, section: str | None, **schema: Any) -> Param:
    if section:
        schema["section"] = section
    return Param(default, title=title, description=description, **schema)


DRY_RUN = {
    "dry_run": flag(
        True,
        "Dry run",
        "Find and judge drift, plan the repair, write nothing. Off: repair if the gate allows it.",
    )
}
PAGES = {
    "page_start": number(1, "First page", "Scan each list from this page on.", FILTERS, least=1),
    "page_end": number(0, "Last page", "Scan up to this page; 0 = to the end.", FILTERS),
}
BATCHES = {
    "batch_size": number(
        1000,
        "Batch size",
        "Images that are read, and later written, with one statement.",
        HOW,
        least=1,
        most=10_000,
    ),
    "concurrency": number(
        5, "Requests at once", "To the store. Fewer if it answers 503 SlowDown.", HOW, least=1, most=64
    ),
}
RESET_WATERMARK = {
    "reset_watermark": flag(
        False,
        "Reset the watermarks",
        "At the resume, skip every change made while the writer stood. Needs dry run off.",
        AFTERWARDS,
    )
}


def progress_every(pages: int) -> dict[str, Param]:
    """Return the field that says after how many pages a scan logs its progress."""
    what = "A line of progress goes to the log every so many pages; 0 = after the last page only."
    return {"progress_every": number(pages, "Pages between progress lines", what, HOW)}
