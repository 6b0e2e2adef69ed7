"""What DAG files and sources declare, as pages: `python -m docs.reference` writes them.

They are docs/dags.md, docs/fields.md, docs/lists.md, docs/drills.md and README's table of sources. With `--check` it
writes nothing, and ends with code 1 if one of them is stale. It needs no metadata database.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docs import drills
from include.sources import REGISTRY, get_source
from include.sources.base import ReadAnswer, ScannedEntity, Source
from include.sources.installed import SETTING
from include.sources.mirror.source import Mirror
from include.sources.pools import declared_pools
from tests.drills.catalog import CHAPTERS, NOT_DRILLED
from tests.drills.marks import played

if TYPE_CHECKING:
    from airflow.sdk import DAG, Param

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "dags.md"
FIELDS = REPOSITORY / "docs" / "fields.md"
LISTS = REPOSITORY / "docs" / "lists.md"
DRILLS = REPOSITORY / "docs" / "drills.md"
README = REPOSITORY / "README.md"
# The two lines around README's table.
BEGIN, END = "<!-- Made by `make docs`. -->", "<!-- End. -->"
DAGS = REPOSITORY / "dags"

# Airflow reads its settings when it is first imported. Nothing listens on port 1: parsing must not need a database.
SETTINGS = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody@127.0.0.1:1/none",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
}

HEAD = """\
# DAGs

Made from the files in `dags/` by `make docs`; edit those. What a person sees in Airflow's UI as the documentation of a
DAG is here under its name, with its tasks and params.
"""

FIELDS_HEAD = """\
# Fields

Made from the declared tables by `make docs`. Every field that a vendor sends is in a column of its table or in the
column `extra`, under the vendor's name, unless it stands here. Dots lead into objects. If a column has a part of an
object that stands here, the rest of the object is not kept. Of answers whose records no table has, and of what stands
around records, single fields are read and no others are kept: here are those that are known. Whatever else the vendor
sends of Flex's lines and of the bucket's objects is counted all the same, and told when it is new.
"""

LISTS_HEAD = """\
# Lists

Made from the declared sources by `make docs`. A vendor's list may leave out records unless it is asked for them, such
as archived or inactive ones. What each list leaves out is here. Either a parameter asks for it, or the copy lacks it,
and the reason is given. No scan can find a row that no list shows.
"""


class BrokenDag(Exception):
    """A DAG file can't be imported. The message names it with the reason."""


def load(folder: Path) -> list["DAG"]:
    """Parse the DAG files in `folder`; return the DAGs in order of their ids. Raises BrokenDag."""
    # Here and not above: `main` has to make Airflow's settings first.
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(folder)
    if bag.import_errors:
        reasons = (f"{file}: {error.strip().splitlines()[-1]}" for file, error in sorted(bag.import_errors.items()))
        raise BrokenDag(f"not to be imported: {'; '.join(reasons)}. Mend that file first")
    return [bag.dags[dag_id] for dag_id in sorted(bag.dags)]


def render(dags: Iterable["DAG"], pools: Mapping[str, Mapping[str, Any]]) -> str:
    """The page: `dags` in their order, then `pools` as the sources declare them."""
    dags = list(dags)
    contents = "\n".join(f"- [`{dag.dag_id}`](#{dag.dag_id}): {_title(dag)}" for dag in dags)
    declared = ([f"`{name}`", pool["slots"], pool["description"]] for name, pool in sorted(pools.items()))
    parts = [HEAD, contents, *(_section(dag) for dag in dags)]
    parts += ["## Pools", _table(["Pool", "Slots", "Description"], declared)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def render_readme(before: str, dags: Iterable["DAG"], sources: Iterable[str]) -> str:
    """README with a fresh table of `sources`; the rest is as `before`."""
    by_id = {dag.dag_id: dag for dag in dags}
    rows = [_source(name, by_id[f"{name}_sync"], by_id[f"{name}_reconcile"]) for name in sources]
    head, _, rest = before.partition(BEGIN)
    tail = rest.partition(END)[2]
    table = _table(["Source", "Sync", "Runbook", "What the sync does"], rows)
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}"


def render_fields(sources: Mapping[str, Source]) -> str:
    """The page of the fields that `sources` ignore: by table, and by the answer if no table has its records."""
    parts = [FIELDS_HEAD]
    for name, source in sources.items():
        by_reason: dict[tuple[str, str], list[str]] = {}
        entities = source.entities if isinstance(source, Mirror) else ()
        for table in (table for entity in entities for table in entity.tables):
            for field, reason in table.ignored.items():
                by_reason.setdefault((table.name, reason), []).append(f"`{field}`")
        rows = [[f"`{table}`", ", ".join(fields), reason] for (table, reason), fields in by_reason.items()]
        parts += [f"## `{name}`", _table(["Table", "Fields", "Why they are not kept"], rows) if rows else ""]
        parts += [_answers(table, names) for table, names in source.answer_names.items()]
        parts += [_read(answer) for answer in source.read_answers]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _answers(table: str, names: Mapping[str, str]) -> str:
    named = "; ".join(f"`{step}` is {words}" for step, words in names.items())
    return f"A record of `{table}` is put together from several answers. A path begins with the answer: {named}."


def _read(answer: ReadAnswer) -> str:
    """What becomes of the fields of an answer whose records no table has."""
    rows = [[f"`{field}`", f"read: {use}"] for field, use in answer.read.items()]
    rows += [[f"`{field}`", f"ignored: {reason}"] for field, reason in answer.ignored.items()]
    title = answer.answer[0].upper() + answer.answer[1:]
    table = _table(["Field", "What becomes of it"], [*rows, ["all others", f"ignored: {answer.rest}"]])
    return f"{title}:\n\n{table}"


def render_lists(sources: Mapping[str, Source]) -> str:
    """The page of what the lists of the `sources` leave out, by source and entity."""
    parts = [LISTS_HEAD]
    for name, source in sources.items():
        rows = [row for entity in source.entities for row in _left_out(entity)]
        parts += [f"## `{name}`", _table(["Entity", "What its lists leave out", "In the copy"], rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _left_out(entity: ScannedEntity) -> list[list[str]]:
    """Rows with the entity, what its lists leave out, and by which parameter it is asked for, or why it is not."""
    named = [[what, f"yes: `{param}` asks for it"] for what, param in entity.leaves_out.asked_for.items()]
    named += [[what, f"no: {why}"] for what, why in entity.leaves_out.missing.items()]
    return [[f"`{entity.name}`", *row] for row in named or [["nothing", ""]]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; code 1 if a page is stale")
    check = parser.parse_args(arguments).check
    with tempfile.TemporaryDirectory(prefix="airflow-home-") as home:
        os.environ.update(SETTINGS, AIRFLOW_HOME=home)
        # The pages are about all sources, whichever this machine's installation has.
        os.environ.pop(SETTING, None)
        try:
            dags = load(DAGS)
        except BrokenDag as error:
            print(f"docs: {error}", file=sys.stderr)
            return 1
        sources = {name: get_source(name) for name in REGISTRY}
        pages = {
            PAGE: render(dags, declared_pools()),
            FIELDS: render_fields(sources),
            LISTS: render_lists(sources),
            DRILLS: drills.render(CHAPTERS, played(REPOSITORY), NOT_DRILLED),
            README: render_readme(README.read_text(), dags, REGISTRY),
        }
    if not check:
        for path, page in pages.items():
            path.write_text(page)
        return 0
    stale = [path for path, page in pages.items() if not path.exists() or path.read_text() != page]
    for path in stale:
        print(f"docs: {path.relative_to(REPOSITORY)} is stale: run `make docs`", file=sys.stderr)
    return 1 if stale else 0


def _title(dag: "DAG") -> str:
    return (dag.doc_md or "").strip().partition("\n")[0].lstrip("# ")


def _source(name: str, sync: "DAG", reconcile: "DAG") -> list[str]:
    title = _title(sync).partition(":")[0]
    page = Path("docs") / f"{name}.md"
    linked = f"[{title}]({page})" if (REPOSITORY / page).exists() else title
    times = [f"[{_when(dag)}](docs/dags.md#{dag.dag_id})" for dag in (sync, reconcile)]
    return [linked, *times, _first_sentence(sync)]


def _when(dag: "DAG") -> str:
    """The schedule in words, if it has one of the usual forms."""
    minute, hour, days = dag.timetable.expression.split(maxsplit=2)
    if days == "* * *" and minute.isdecimal() and hour.isdecimal():
        return f"{int(hour):02}:{int(minute):02}"
    if (hour, days) == ("*", "* * *") and re.fullmatch(r"(\*/)?\d+", minute):
        return f"every {minute[2:]} minutes" if minute.startswith("*/") else "every hour"
    return _schedule(dag)


def _first_sentence(dag: "DAG") -> str:
    paragraph = (dag.doc_md or "").strip().split("\n\n")[1].replace("\n", " ")
    return re.split(r"(?<=\.) ", paragraph, maxsplit=1)[0]


def _section(dag: "DAG") -> str:
    facts = [_schedule(dag), ", ".join(sorted(dag.tags)), dag.max_active_runs]
    parts = [
        f"## `{dag.dag_id}`",
        _table(["Schedule", "Tags", "Runs at once"], [facts]),
        re.sub(r"^#", "###", (dag.doc_md or "").strip(), flags=re.MULTILINE),
        "### Tasks",
        _table(
            ["", "Task", "Operator", "After", "Trigger rule", "Pool", "Retries"],
            ([number, *_task(task)] for number, task in enumerate(dag.task_group.topological_sort(), 1)),
        ),
    ]
    if len(dag.params):
        rows = (_param(name, dag.params.get_param(name)) for name in dag.params)
        parts += ["### Params", _table(["Param", "Title", "Type", "Default", "Meaning"], rows)]
    return "\n\n".join(parts)


def _schedule(dag: "DAG") -> str:
    return "by hand" if dag.schedule is None else f"`{dag.timetable.expression}` ({dag.timetable.timezone})"


def _task(task: Any) -> list[Any]:
    after = ", ".join(f"`{name}`" for name in sorted(task.upstream_task_ids))
    rule = f"`{task.trigger_rule.value}`"
    return [f"`{task.task_id}`{_role(task)}", task.operator_name, after, rule, f"`{task.pool}`", task.retries]


def _role(task: Any) -> str:
    """What sets the task apart: setup, teardown, or one instance for each of some values."""
    if task.is_setup:
        return " (setup)"
    if task.is_teardown:
        return " (teardown)"
    if task.is_mapped:
        mapped = task.expand_input.value
        return "".join(f", one for each {name}: {', '.join(values)}" for name, values in mapped.items())
    return ""


def _param(name: str, param: "Param") -> list[str]:
    schema = param.schema
    return [f"`{name}`", schema.get("title", ""), _type(schema), _default(param), param.description or ""]


def _default(param: "Param") -> str:
    if param.has_value:
        return f"`{json.dumps(param.value)}`"
    return "`null`" if "null" in param.schema.get("type", "") else "required"


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    kind = kind if isinstance(kind, str) else " or ".join(kind)
    return kind + (f", at least {schema['minimum']}" if "minimum" in schema else "")


def _table(head: list[str], rows: Iterable[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
