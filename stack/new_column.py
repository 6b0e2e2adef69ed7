"""Make a column of a field that is kept in `extra`: `python -m stack.new_column acme customers price.amount`.

Writes the migration, and the column into the table's declaration. If no place for it is sure there, it is told instead.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from include.sources import REGISTRY
from include.sources.mirror.source import Mirror
from include.warehouse.field_path import lies_in, split
from include.warehouse.readers import text
from include.warehouse.table import EXTRA, Column, Table
from stack.new_source import (
    REPOSITORY,
    TYPES,
    VERSIONS,
    NotMade,
    WrongDeclaration,
    declaration,
    filled,
    next_revision,
    short,
)

READERS = {read.__name__: read for read in TYPES}
READERS_MODULE = text.__module__
# The mirror's own columns, and those that every table of Postgres has.
RESERVED = {EXTRA, "row_hash", "deleted_at", "sync_id", "ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"}
# The longest line that the lint allows.
WIDTH = 120


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stack.new_column", description=__doc__)
    parser.add_argument("source", help="the mirrored source")
    parser.add_argument("table", help="the name of its table")
    parser.add_argument("field", help="the vendor's name of the field; dots lead into objects")
    parser.add_argument("--name", default="", help="of the column; by default the field's in lower case")
    parser.add_argument("--type", default=text.__name__, help=f"the reader: {', '.join(READERS)}")
    arguments = parser.parse_args()
    try:
        told = write_column(arguments.source, arguments.table, arguments.field, arguments.name, arguments.type)
    except (NotMade, WrongDeclaration) as error:
        print(f"column: {error}", file=sys.stderr)
        return 1
    print("\n".join(told))
    return 0


def write_column(source: str, table_name: str, field: str, name: str = "", reader: str = text.__name__) -> list[str]:
    """Write migration and declaration of the column; return what to tell. Raises NotMade and WrongDeclaration."""
    table = _table(source, table_name)
    column = _column(field, name or _snake_case(field), reader)
    if mistake := _field_mistake(table, field) or _name_mistake(table, column.name):
        raise NotMade(mistake)
    places = list(_places(source, table.name))
    edit = _edit(table, column, places)
    revision = next_revision()
    migration = VERSIONS / f"{revision}_{source}_{table.name}_{column.name}.py"
    written = filled(
        "column",
        name=column.name,
        table=table.full_name,
        reader_import="" if column.read is text else f"from {READERS_MODULE} import {reader}\n",
        revision=revision,
        before=f"{int(revision) - 1:04}",
        column=_code(column),
        type=TYPES[column.read],
    )
    migration.write_text(written)
    told = [f"written: {short(migration)}"]
    if edit:
        path, code = edit
        path.write_text(code)
        told.append(f"written: {short(path)}: {_code(column)}")
    else:
        where = f"{short(places[0].path)}:{places[0].line}" if places else f"include/sources/{source}"
        told.append(f"not written: add to the columns of {table.name} ({where}), as others are written there:")
        told.append(f"    {_code(column)},")
    return [*told, f"then: make contract NAME={source}; docs/new-source.md says what to do in the warehouse"]


def _table(source: str, name: str) -> Table:
    if source not in REGISTRY:
        raise NotMade(f"there is no source {source!r}. There are {', '.join(REGISTRY)}")
    declared = declaration(source)
    if not isinstance(declared, Mirror):
        raise NotMade(f"{source} is no mirror, so none of its tables keeps extra fields")
    tables = {table.name: table for entity in declared.entities for table in entity.tables if table.keeps_extra}
    if name not in tables:
        raise NotMade(f"{source} has no table {name!r} with extra fields. It has {', '.join(tables)}")
    return tables[name]


def _column(field: str, name: str, reader: str) -> Column:
    if reader not in READERS:
        raise NotMade(f"there is no type {reader!r}. Take one of {', '.join(READERS)}")
    return Column(name, READERS[reader], "" if field == name else field)


def _snake_case(field: str) -> str:
    """Return the field's name as a column's: `price.unitAmount` is price_unit_amount."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", field)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def _field_mistake(table: Table, field: str) -> str:
    """Return why the field can't be a column; empty if it can."""
    if not all(split(field)) or "[]" in field or not field.isprintable():
        return f"{field!r} is not a field: give names with dots between them for nested objects. Lists have no fields"
    if '"' in field:
        return (
            f"{field} has a name in quotes, as it has dots or brackets in it: no column can be made of it, so it stays"
            " in extra"
        )
    if added := [name for name in table.added if lies_in(field, name)]:
        return (
            f"the column {added[0]} of {table.full_name} has a value of our own code, and no column can be made of the"
            " vendor's field of that name: it stays in extra"
        )
    for column in table.columns:
        # The column reads the field, or an object around it, or something inside the field.
        paths = [path for path in column.reads if lies_in(field, path)]
        if lies_in(column.dotted_path, field):
            paths.append(column.dotted_path)
        if paths:
            return f"the column {column.name} of {table.full_name} reads {paths[0]} already"
    for path, reason in table.ignored.items():
        if lies_in(field, path) or lies_in(path, field):
            return (
                f"{table.full_name} ignores {path} ({reason}), so no copy has it. Take it out of `ignored`, run a full"
                " sync, then make the column"
            )
    return ""


def _name_mistake(table: Table, name: str) -> str:
    """Return why the column can't have that name; empty if it can."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        return (
            f"{name!r} is not a valid name of a column: use lower-case letters, digits and underscores. Give"
            " another with NAME="
        )
    if name in RESERVED:
        return f"{name} is the name of a column that every table has. Give another with NAME="
    if name in table.names:
        return f"{table.full_name} has a column {name} already. Give another name with NAME="
    return ""


def _code(column: Column) -> str:
    """Return the column as it is written in a declaration."""
    shown = [_quoted(column.name)]
    if column.read is not text:
        shown.append(column.read.__name__)
    if column.field:
        shown.append(f"field={_quoted(column.field)}")
    return f"Column({', '.join(shown)})"


def _quoted(value: str) -> str:
    """Return a literal of Python, as the formatter has it."""
    plain = '"' not in value and "\\" not in value
    return f'"{value}"' if plain else repr(value)


@dataclass(frozen=True)
class _Place:
    """A call that makes a table. `columns`: its expressions for columns; none if it doesn't show which they are."""

    path: Path
    line: int
    columns: Sequence[ast.expr]


def _places(source: str, name: str) -> Iterator[_Place]:
    """Find the calls that may make the table."""
    for path in sorted((REPOSITORY / "include" / "sources" / source).rglob("*.py")):
        module = ast.parse(path.read_bytes())
        # By the name of a function that makes a table: the types of its arguments, and of any further ones.
        makers = {"Table": (["str", "str", "tuple[Column, ...]"], "")}
        makers |= {each.name: _annotations(each) for each in module.body if _makes_a_table(each)}
        for call in ast.walk(module):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in makers):
                continue
            if name in [each.value for each in call.args[:2] if isinstance(each, ast.Constant)]:
                yield _Place(path, call.lineno, _columns(call, *makers[call.func.id]))


def _makes_a_table(statement: ast.stmt) -> bool:
    """Return whether the statement defines a function that returns a table."""
    return isinstance(statement, ast.FunctionDef) and _written(statement.returns) == "Table"


def _written(annotation: ast.expr | None) -> str:
    return ast.unparse(annotation) if annotation else ""


def _annotations(function: ast.FunctionDef) -> tuple[list[str], str]:
    """Return the types of the arguments by place, and that of all further ones."""
    further = function.args.vararg
    return [_written(each.annotation) for each in function.args.args], _written(further and further.annotation)


def _columns(call: ast.Call, by_place: Sequence[str], further: str) -> Sequence[ast.expr]:
    """Return the call's expressions for columns; none if it can't be told which they are."""
    if further == "Column":
        return call.args[len(by_place) :]
    for argument, type_ in zip(call.args, by_place, strict=False):
        if type_ == "tuple[Column, ...]" and isinstance(argument, ast.Tuple):
            return argument.elts
    return []


def _edit(table: Table, column: Column, places: Sequence[_Place]) -> tuple[Path, str] | None:
    """Return the file and its text with the column; None unless it is sure to declare that column and nothing else."""
    if len(places) != 1 or not places[0].columns:
        return None
    path = places[0].path
    before = path.read_text()
    after = _with_line(before, places[0].columns[-1], _code(column))
    if after is None:
        return None
    after = _with_import(after, column.read.__name__)
    wanted = {table.full_name: sorted([*_shown(table), _described(column)])}
    try:
        return (path, after) if _declared(path, after) == _declared(path, before) | wanted else None
    except Exception:  # noqa: BLE001 - whatever the new text runs into, it isn't sure
        return None


def _with_line(code: str, last: ast.expr, column: str) -> str | None:
    """Return the code with the column behind the expression `last`; None if the line would become too long."""
    lines = code.encode().splitlines(keepends=True)
    line = lines[last.end_lineno - 1]
    head, tail = line[: last.end_col_offset], line[last.end_col_offset :]
    start = lines[last.lineno - 1]
    indent = start[: len(start) - len(start.lstrip())]
    # If `last` shares its line with other columns, the new one joins them there.
    own_line = not start[: last.col_offset].strip() and tail.startswith(b",")
    between = b",\n" + indent if own_line else b", "
    new = head + between + column.encode() + tail
    if max(len(each) for each in new.decode().splitlines()) > WIDTH:
        return None
    return b"".join([*lines[: last.end_lineno - 1], new, *lines[last.end_lineno :]]).decode()


def _with_import(code: str, reader: str) -> str:
    """Return the code with the reader among those that it imports; unchanged if it imports none or that one already."""
    for each in ast.parse(code).body:
        if isinstance(each, ast.ImportFrom) and each.module == READERS_MODULE and each.lineno == each.end_lineno:
            lines = code.splitlines(keepends=True)
            imported = ", ".join(sorted({*map(ast.unparse, each.names), reader}))
            lines[each.lineno - 1] = f"from {READERS_MODULE} import {imported}\n"
            return "".join(lines)
    return code


def _declared(path: Path, code: str) -> dict[str, list[tuple]]:
    """Return the columns of each table that the code of a source's module declares."""
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    module = ModuleType(name)
    module.__package__ = name if path.name == "__init__.py" else name.rpartition(".")[0]
    module.__file__ = str(path)
    exec(compile(code, path, "exec"), vars(module))
    return {each.full_name: _shown(each) for each in vars(module).values() if isinstance(each, Table)}


def _shown(table: Table) -> list[tuple]:
    return sorted(map(_described, table.columns))


def _described(column: Column) -> tuple[str, str, str, bool, str]:
    """Return what tells a column from others. Readers of a module that is run twice are equal by their names."""
    return column.name, column.dotted_path, column.read.__qualname__, column.compared, repr(column.uses)


if __name__ == "__main__":
    sys.exit(main())
