"""A column made of a field in `extra`: what the command writes, in a copy of the repository, and what it refuses."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import new_column
from stack.new_column import VERSIONS, write_column
from stack.new_source import NotMade
from stack.settings import REPOSITORY
from tests.stub.test_new_source import run

PARTS = ("dags", "docs", "include", "plugins", "stack", "tests")
FILES = ("docker-compose.yaml", "pyproject.toml", "Dockerfile", "Makefile")
# Source, table, field, further arguments; the line in the declaration, and whether the command finds its place.
MADE = [
    ("repairshopr", "customers", ["loyalty_number"], 'Column("loyalty_number")', True),
    (
        "repairshopr",
        "tickets",
        ["asset.serialNo", "--name", "serial"],
        'Column("serial", field="asset.serialNo")',
        True,
    ),
    (
        "repairshopr",
        "line_items",
        ["upcCode", "--type", "integer"],
        'Column("upc_code", integer, field="upcCode")',
        True,
    ),
    ("square", "vendors", ["closedAt", "--type", "instant"], 'Column("closed_at", instant, field="closedAt")', True),
    ("square", "payments", ["approval.tries", "--type", "integer"], "", True),
    ("square", "order_returns", ["reasons", "--type", "structure"], 'Column("reasons", structure)', True),
    # A helper's own form of columns.
    ("square", "catalog_items", ["item_data.till_color"], 'Column("item_data_till_color", field=', False),
    # Readers that the modules don't import yet.
    ("square", "locations", ["parent", "--type", "identifier"], 'Column("parent", identifier)', True),
    ("tekmetric", "customers", ["birthDay"], 'Column("birth_day", field="birthDay")', True),
    ("tekmetric", "job_parts", ["bin", "--type", "decimal"], 'Column("bin", decimal)', True),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The repository after all commands, and what each has told."""
    folder = tmp_path_factory.mktemp("repository")
    for part in PARTS:
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in FILES:
        shutil.copy(REPOSITORY / part, folder / part)
    told = [run(folder, "stack.new_column", source, table, *arguments) for source, table, arguments, *_ in MADE]
    yield folder, told
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", range(len(MADE)), ids=[f"{source}.{table}" for source, table, *_ in MADE])
def test_writes_declaration_and_migration_or_tells_the_line(made, number):
    folder, told = made[0], made[1][number]
    source, table, _, code, placed = MADE[number]
    migration = folder / re.match(r"written: (\S+)\n", told)[1]
    assert f'column_from_extra("{source}.{table}", COLUMN, ' in migration.read_text()
    assert code in migration.read_text()
    declared = (folder / "include" / "sources" / source / "tables.py").read_text()
    assert (code in declared) == placed
    if not placed:
        [line] = re.findall(
            rf"not written: add to the columns of {table} \(include/sources/square/tables.py:(\d+)\)", told
        )
        assert f'"{table}",' in "".join(declared.splitlines()[int(line) - 1 : int(line) + 2])
        assert f"    {code}" in told


def test_passes_the_lint(made):
    run(made[0], "ruff", "check", "include", "--no-cache")
    run(made[0], "ruff", "format", "--check", "include", "--no-cache")


def test_declares_what_is_migrated(made, postgres):
    """Every table has the columns that it had, and the new one."""
    chosen = [f"{source}-{table}]" for source, table, *_, placed in MADE if placed]
    told = run(
        made[0],
        *["pytest", "tests/contract/test_mirrors.py", "-q", "-p", "no:cacheprovider"],
        *["-k", f"(columns_are_the or part_of_the_hash) and ({' or '.join(chosen)})"],
        STACK_POSTGRES_URL=postgres.url("postgres"),
    )
    assert f"{2 * len(chosen)} passed" in told


class TestRefused:
    """By one line, and nothing is written."""

    @pytest.mark.parametrize(
        ("arguments", "why"),
        [
            (("acme", "customers", "a"), "there is no source 'acme'. There are flex, "),
            (("storage", "images", "a"), "storage is no mirror"),
            (("repairshopr", "people", "a"), "repairshopr has no table 'people' with extra fields. It has customers, "),
            (("square", "transactions", "a"), "square has no table 'transactions' with extra fields"),
            (("repairshopr", "customers", "email"), "the column email of repairshopr.customers reads email already"),
            (("repairshopr", "customers", "properties.a"), "the column properties of repairshopr.customers reads prop"),
            (
                ("square", "orders", "total_money"),
                "the column total_money of square.orders reads total_money.amount al",
            ),
            (
                ("square", "order_line_items", "position.name"),
                "the column position of square.order_line_items has a value of our own code",
            ),
            (("tekmetric", "employees", "employeePayType.code"), "the column pay_type of tekmetric.employees reads"),
            (("tekmetric", "employees", "employeePayType.code.a"), "the column pay_type of tekmetric.employees reads"),
            (("tekmetric", "employees", "employeePayType"), "the column pay_type of tekmetric.employees reads"),
            (
                ("repairshopr", "customers", "fullname"),
                "repairshopr.customers ignores fullname (firstname and lastname",
            ),
            (("repairshopr", "payments", "customer.name"), "so no copy has it. Take it out of `ignored`"),
            (("square", "catalog_items", "item_data"), "the column name of square.catalog_items reads item_data.name"),
            (("repairshopr", "customers", 'a."b.c"'), 'a."b.c" has a name in quotes, as it has dots'),
            (("repairshopr", "customers", "a..b"), "'a..b' is not a field"),
            (("repairshopr", "customers", "a[].b"), "'a[].b' is not a field"),
            (("repairshopr", "customers", "row_hash"), "row_hash is the name of a column that every table has"),
            (("repairshopr", "customers", "a", "xmin"), "xmin is the name of a column that every table has"),
            (("repairshopr", "customers", "zipCode", "zip"), "repairshopr.customers has a column zip already"),
            (("repairshopr", "customers", "ü"), "'' is not a valid name of a column"),
            (("repairshopr", "customers", "a", "A"), "'A' is not a valid name of a column"),
            (("repairshopr", "customers", "a", "", "float"), "there is no type 'float'. Take one of boolean, "),
        ],
        ids=lambda value: ".".join(value[1:3]) if isinstance(value, tuple) else "",
    )
    def test_what_can_not_be(self, arguments, why):
        before = sorted(VERSIONS.iterdir())
        with pytest.raises(NotMade, match=re.escape(why)) as caught:
            write_column(*arguments)
        assert "\n" not in str(caught.value)
        assert sorted(VERSIONS.iterdir()) == before

    def test_by_the_command(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["new_column", "repairshopr", "customers", "email"])
        assert new_column.main() == 1
        told = capsys.readouterr().err
        assert told == "column: the column email of repairshopr.customers reads email already\n"
