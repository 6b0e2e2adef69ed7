"""Begin a new source: `python -m stack.new_source acme` writes its files, with one list as an example.

With `--tables` only the migration is written again, from the tables that the source declares by now.
"""

import argparse
import keyword
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from string import Template
from types import NoneType
from typing import Any, get_args, get_type_hints

from include.sources import KINDS, REGISTRY, load_source
from include.sources.mirror.source import Mirror
from include.warehouse.readers import boolean, decimal, identifier, instant, integer, structure, text, unix_time
from include.warehouse.table import EXTRA, Column, Table
from stack.settings import REPOSITORY

TEMPLATES = Path(__file__).with_name("templates")
VERSIONS = REPOSITORY / "include" / "warehouse" / "migrations" / "versions"
MADE = "Made by `make tables"
TYPES = {
    boolean: "boolean",
    decimal: "numeric",
    identifier: "bigint",
    instant: "timestamptz",
    integer: "bigint",
    structure: "jsonb",
    unix_time: "timestamptz",
    text: "text",
}
# The types of columns that are read by functions of the source's own, by what these say that they return.
RETURNED = {
    bool: "boolean",
    date: "date",
    datetime: "timestamptz",
    Decimal: "numeric",
    int: "bigint",
    str: "text",
}
# In place of the type of a column whose function doesn't say what it returns.
UNKNOWN = "TYPE?"
# Schemas of the warehouse, and connections, that are not a source's.
TAKEN = {"airflow_api", "confidence", "images_db", "notifications", "public", "staging", "warehouse", *KINDS}


class NotMade(Exception):
    """Nothing was written. The message says why in one line, and what to do."""


class WrongDeclaration(Exception):
    """A source's package can't be imported. The message says in one line where, why, and what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stack.new_source", description=__doc__)
    parser.add_argument("name", help="of the source: its package, schema, connection, and the beginning of its DAGs")
    parser.add_argument("--tables", action="store_true", help="write the migration again from the declared tables")
    arguments = parser.parse_args()
    try:
        told = write_tables(arguments.name) if arguments.tables else write_source(arguments.name)
    except (NotMade, WrongDeclaration) as error:
        print(f"new-source: {error}", file=sys.stderr)
        return 1
    print("\n".join(told))
    return 0


def write_source(name: str) -> list[str]:
    """Write the files of a new source; return what to tell. Raises NotMade."""
    _require_name(name)
    files = {
        REPOSITORY / "include" / "sources" / name / "__init__.py": "source",
        REPOSITORY / "dags" / f"{name}_sync.py": "sync",
        REPOSITORY / "dags" / f"{name}_reconcile.py": "reconcile",
        REPOSITORY / "tests" / "contract" / f"{name}.py": "answers",
    }
    there = [path for path in files if path.exists()]
    if there:
        raise NotMade(f"{short(there[0])} exists already. Remove it, or take another name")
    texts = {path: filled(template, name=name, title=_title(name)) for path, template in files.items()}
    for path, code in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    migration = VERSIONS / f"{next_revision()}_{name}.py"
    _write_migration(migration, name)
    todo = {
        "source": "fill in: the tables and lists, as docs/new-source.md says",
        "answers": "fill in: what the API answers, by list",
        "sync": "change the schedule if need be",
        "reconcile": "change the schedule if need be",
    }
    written = [(short(path), todo[template]) for path, template in files.items()]
    written += [
        (short(migration), f"not by hand: make tables NAME={name} writes it again from the declared tables"),
        ("docs/dags.md", "not by hand: make docs writes it again from the DAGs (make new-source does so now)"),
        ("README.md", "not by hand: the same for its table of sources"),
        *((path, "not by hand: the same for what it reads") for path in ("docs/fields.md", "docs/lists.md")),
    ]
    width = max(len(path) for path, _ in written)
    return [
        "written:",
        *(f"  {path:{width}}  {what}" for path, what in written),
        f"then: make tables NAME={name} && make contract NAME={name}",
    ]


def write_tables(name: str) -> list[str]:
    """Write the source's migration again; return what to tell. Raises NotMade and WrongDeclaration."""
    if name not in REGISTRY:
        raise NotMade(f"there is no source {name!r}. Begin it with `make new-source NAME={name}`")
    migrations = sorted(VERSIONS.glob(f"[0-9][0-9][0-9][0-9]_{name}.py"))
    if len(migrations) != 1 or MADE not in migrations[0].read_text():
        raise NotMade(f"the migration of {name} is written by hand. Change its tables by a migration of their own")
    open_columns = _write_migration(migrations[0], name)
    told = [f"written: {short(migrations[0])}"]
    if open_columns:
        columns = ", ".join(open_columns)
        told.append(
            f"next: say what the functions that read {columns} return, as in `-> int | None`, and run this again. Or"
            f" write the types in place of {UNKNOWN!r}, each time"
        )
    return told


def declaration(name: str) -> Mirror:
    """Return what the source's package declares. Raises WrongDeclaration."""
    try:
        return load_source(name)
    except Exception as error:
        raise WrongDeclaration(refusal(REPOSITORY / "include" / "sources" / name / "__init__.py", error)) from error


def refusal(file: Path, error: Exception) -> str:
    """Say in one line where in a module, or the package around it, the error is, what is wrong, and what to do."""
    inside = file.parent if file.name == "__init__.py" else file
    places = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((Path(error.filename), error.lineno))
    # The last frame inside the module: the frames after it only raise the error.
    path, line = next((place for place in reversed(places) if place[0].is_relative_to(inside)), (file, 1))
    what, todo = str(error), "Mend that line"
    if isinstance(error, SyntaxError):
        what = error.msg
    elif isinstance(error, ValueError):
        todo = "The end of docs/new-source.md says what to do about it"
    elif isinstance(error, ImportError | TypeError):
        todo = "Mend that line: docs/new-source.md shows what is imported from where, and how it is called"
    else:
        what = f"{type(error).__name__}: {error}"
    return f"{short(path)}:{line}: {what}. {todo}"


def _require_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,29}", name) or keyword.iskeyword(name):
        raise NotMade(
            f"{name!r} is not a valid name: use 2 to 30 lower-case letters, digits and underscores, a letter first"
        )
    if name in REGISTRY or name in TAKEN:
        raise NotMade(f"{name!r} is taken. Take another name")
    if named := _files_with_word(name):
        raise NotMade(
            f"{short(named[0])} uses the word {name!r} already, so a search for the source would find other things too."
            " Take another name"
        )


def _files_with_word(word: str) -> list[Path]:
    """Return the product's files that have the word, alone or as a part of a name with underscores."""
    pattern = re.compile(rf"(?<![^\W_]){word}(?![^\W_])", re.IGNORECASE)
    files = (path for folder in ("dags", "plugins", "include") for path in sorted((REPOSITORY / folder).rglob("*.py")))
    return [path for path in files if pattern.search(path.read_text())]


def next_revision() -> str:
    return f"{int(max(path.name[:4] for path in VERSIONS.glob('[0-9]*.py'))) + 1:04}"


def _write_migration(path: Path, name: str) -> list[str]:
    """Write the migration from the declared tables; return the columns whose types are not known."""
    source = declaration(name)
    tables = [table for entity in source.entities for table in entity.tables]
    tables += [derived.table for derived in source.derived]
    revision = path.name[:4]
    path.write_text(
        filled(
            "migration",
            name=name,
            title=_title(name),
            revision=revision,
            before=f"{int(revision) - 1:04}",
            tables="".join(map(_table, tables)),
            indexes=_indexes(source),
        )
    )
    return [f"{table.name}.{column.name}" for table in tables for column in table.columns if _type(column) == UNKNOWN]


def _table(table: Table) -> str:
    """Return the table's entry in the migration."""
    types = {column.name: _type(column) for column in table.columns}
    types |= {EXTRA: "jsonb"} if table.keeps_extra else {}
    key = ", ".join(f'"{name}": "{types[name]}"' for name in table.key)
    columns = _lines(f'"{name}": "{kind}"' for name, kind in types.items() if name not in table.key)
    unhashed = "".join(f'"{column.name}", ' for column in table.columns if not column.compared)
    entries = [f"{{{key}}}", f"{{\n{columns}        }}", f"({unhashed.removesuffix(' ')})"]
    return f'    "{table.name}": (\n' + "".join(f"        {entry},\n" for entry in entries) + "    ),\n"


def _lines(entries: Iterable[str]) -> str:
    return "".join(f"            {entry},\n" for entry in entries)


def _type(column: Column) -> str:
    return TYPES.get(column.read) or _returned(column.read)


def _returned(read: Callable[..., Any]) -> str:
    """Return the type of what a function says that it returns, None aside; UNKNOWN if it doesn't say."""
    try:
        hint = get_type_hints(read).get("return")
    except (TypeError, NameError):
        return UNKNOWN
    kinds = set(get_args(hint) or [hint]) - {NoneType}
    return RETURNED.get(kinds.pop(), UNKNOWN) if len(kinds) == 1 else UNKNOWN


def _indexes(source: Mirror) -> str:
    """Return the entries for indexes on the columns by which rows name another record."""
    found = [(e.table, e.lookup.by) for e in source.entities if e.lookup.by != e.table.key]
    found += [(part.table, part.by) for e in source.entities for part in e.parts if part.by != part.table.key]
    entries = [f'"{table.name} ({", ".join(columns)})",' for table, columns in found]
    # As the formatter has it: one entry stays on its line.
    return "".join(f"\n    {entry}" for entry in entries) + "\n" if len(entries) > 1 else "".join(entries)


def filled(template: str, **values: str) -> str:
    return Template((TEMPLATES / f"{template}.py.template").read_text()).substitute(values)


def _title(name: str) -> str:
    return name.replace("_", " ").title()


def short(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


if __name__ == "__main__":
    sys.exit(main())
