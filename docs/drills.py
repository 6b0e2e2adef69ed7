"""The page docs/drills.md: the runbook of on-call, made from the drills and the tests that play them."""

import re
from collections.abc import Mapping, Sequence

from tests.drills.catalog import Drill, NotDrilled
from tests.drills.marks import Played

HEAD = """\
# Drills

What on-call may meet: what one sees, what to click, and what must hold afterwards. Made from `tests/drills/catalog.py`
by `make docs`. Every drill is played by the tests that it names: `make drills` runs them all, `make test`
those that fit its time (not those with °). The words are in the [glossary](glossary.md); who is told what is in
[notifications.md](notifications.md).

Whatever happened, before you leave:

1. **The truth on the page.** Under **Drift** no source has a finding, and each says whether its writer runs.
2. **One writer.** A writer that stands has a run at work on it, or a question that waits. The query below shows it.
3. **Nothing lost, nothing doubled.** Trigger `<source>_reconcile` as a dry run: it ends green, with nothing planned.
4. **Told once.** Messages are recorded in `confidence.notification`; one is sent again only if its cause comes again.

```sql
SELECT source, state, run, since, hold_reason FROM confidence.writer ORDER BY source;
```

**Clear with downstream** means: in Airflow, the run, the task, *Clear*, with *Downstream* on and *Only failed* off."""

LEFT_TITLE = "What is not drilled here"


def render(
    chapters: Mapping[str, Sequence[Drill]], played: Mapping[str, Sequence[Played]], left: Sequence[NotDrilled]
) -> str:
    """The page: contents, the drills of each chapter, and what was left out."""
    contents = "\n".join(f"- [{title}](#{_anchor(title)})" for title in (*chapters, LEFT_TITLE))
    parts = [HEAD, contents]
    for title, drills in chapters.items():
        parts += [f"## {title}", *(_section(drill, played.get(drill.name, ())) for drill in drills)]
    parts += [f"## {LEFT_TITLE}", "\n".join(f"- **{each.what}:** {each.why}" for each in left)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")


def _section(drill: Drill, tests: Sequence[Played]) -> str:
    return "\n\n".join(
        [
            f"### {drill.title}",
            f"**Seen:** {drill.seen}",
            f"**Do:** {drill.click}",
            f"**Must hold:** {drill.holds}",
            f"<details><summary>Tests</summary>\n\n{_files(tests)}\n\n</details>",
        ]
    )


def _files(tests: Sequence[Played]) -> str:
    """Name the tests by file, each file a link."""
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(test.path, []).append(f"`{test.name}`{'°' if test.long else ''}")
    return "\n".join(f"- [{path}](../{path}): {', '.join(names)}" for path, names in by_file.items())
