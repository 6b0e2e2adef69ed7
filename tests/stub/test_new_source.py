"""A new source: what is written for it, and the tutorial's, pass the contract in a copy of the repository."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from include import sources
from include.api.paginators import tokens
from include.sources import get_source
from include.sources.mirror import derive, entity, listing, lookup_mistakes, lookup_request, source
from include.warehouse import table
from include.warehouse.table import Column
from stack import new_source
from stack.new_source import NotMade, WrongDeclaration, declaration, write_source, write_tables
from stack.postgres import Server
from stack.settings import REPOSITORY
from tests.contract.stubbed import stubbed

PAGE = (REPOSITORY / "docs" / "new-source.md").read_text()
# Each block of code of a file, in order; together they are the file.
BLOCK = re.compile(r"^`([\w/]+\.py)`, [^\n]*:\n\n```python\n(.*?)```", re.DOTALL | re.MULTILINE)
PARTS = (
    "benchmarks",
    "dags",
    "docs",
    "include",
    "plugins",
    "stack",
    "tests",
    "docker-compose.yaml",
    "pyproject.toml",
    "Dockerfile",
)
BEGUN, TAUGHT, WIDE = "acme", "lendesk", "wharf"
# Of the wide one what shows that the stub serves each kind of list as it is asked for.
FEW = f"{WIDE} and (drift or mends or twice or brings_every or edges or lookup or page or wherever)"
# Lines that somebody has to write, at most.
BY_HAND = 150
# What the command has told, by source.
WRITTEN: dict[str, str] = {}


def tutorial() -> dict[str, str]:
    """The files of the tutorial by their paths."""
    files: dict[str, str] = {}
    for path, code in BLOCK.findall(PAGE):
        files[path] = f"{files[path]}\n\n{code}" if path in files else code
    return files


def run(repository: Path, *command: str, **environment: str) -> str:
    """Run a command of Python in a repository; return what it prints. It has to end well."""
    known = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", ""), **environment}
    done = subprocess.run([sys.executable, "-m", *command], cwd=repository, env=known, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The repository with both sources, as they are after the commands."""
    folder = tmp_path_factory.mktemp("repository")
    for part in PARTS:
        path = REPOSITORY / part
        if path.is_dir():
            shutil.copytree(path, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder / part)
    for name in (BEGUN, TAUGHT, WIDE):
        WRITTEN[name] = run(folder, "stack.new_source", name)
    for path, code in tutorial().items():
        assert (folder / path).exists(), path
        (folder / path).write_text(code)
    shutil.copy(folder / "tests" / "stub" / "wide.py", folder / "include" / "sources" / WIDE / "__init__.py")
    shutil.copy(folder / "tests" / "stub" / "wide_examples.py", folder / "tests" / "contract" / f"{WIDE}.py")
    for name in (TAUGHT, WIDE):
        run(folder, "stack.new_source", name, "--tables")
    yield folder
    shutil.rmtree(folder)


def passed(copy: Path, name: str, postgres: Server) -> int:
    """Run what `make contract` runs; return how many tests have passed."""
    makefile = (REPOSITORY / "Makefile").read_text()
    [line] = re.findall(r'^contract: .*\n\t\$\(BIN\)/python -m (pytest .*) -k "\$\(NAME\)"$', makefile, re.MULTILINE)
    arguments = [*line.split(), "-k", name, "-p", "no:cacheprovider"]
    told = run(copy, *arguments, STACK_POSTGRES_URL=postgres.url("postgres"))
    assert f"no simulator, so neither scenario nor lies: {BEGUN}, {TAUGHT}, {WIDE}" in told
    return int(re.search(r"(\d+) passed", told)[1])


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "tests"), [(BEGUN, 70), (TAUGHT, 80), (FEW, 15)], ids=[BEGUN, TAUGHT, WIDE])
def test_passes_its_contract(copy, postgres, name, tests):
    assert passed(copy, name, postgres) > tests


def test_passes_the_lint(copy):
    run(copy, "ruff", "check", ".", "--no-cache")
    run(copy, "ruff", "format", "--check", ".", "--no-cache")


@pytest.mark.parametrize("name", [BEGUN, TAUGHT])
def test_needs_few_lines_by_hand(copy, name):
    paths = [f"include/sources/{name}/__init__.py", f"tests/contract/{name}.py"]
    lines = [line for path in paths for line in (copy / path).read_text().splitlines() if line.strip()]
    assert len(lines) <= BY_HAND


def test_tables_are_those_that_the_tutorial_declares(copy):
    [migration] = (copy / "include" / "warehouse" / "migrations" / "versions").glob("*_lendesk.py")
    text = migration.read_text()
    assert re.findall(r'^    "(\w+)": \(', text, re.MULTILINE) == ["members", "loans"]
    assert '"fee": "numeric"' in text
    assert '{"id": "text"}' in text


def test_the_tutorial_says_what_comes_from_where():
    rows = re.findall(r"^\| `(include(?:\.\w+)+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 15
    for module, known in rows:
        for name in re.findall(r"`(\w+)`", known):
            assert hasattr(import_module(module), name), (module, name)


def _millis(value: Any) -> datetime | None: ...


def _size(value: Any) -> int: ...


def _either(value: Any) -> int | str: ...


@pytest.mark.parametrize(
    ("read", "kind"),
    [(_millis, "timestamptz"), (_size, "bigint"), (_either, "TYPE?"), (lambda value: value, "TYPE?"), (str, "TYPE?")],
)
def test_the_type_of_a_column_is_what_its_function_says_that_it_returns(read, kind):
    assert new_source._type(Column("size", read)) == kind


def test_a_single_index_is_written_as_the_lint_wants_it():
    assert new_source._indexes(get_source("repairshopr")) == '"line_items (invoice_id)",'


class TestRefused:
    """By one line, and nothing is written."""

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("Acme", "'Acme' is not a valid name: use 2 to 30 lower-case letters"),
            ("a-b", "'a-b' is not a valid name"),
            ("class", "'class' is not a valid name"),
            ("repairshopr", "'repairshopr' is taken. Take another name"),
            ("mirror", "'mirror' is taken"),
            ("warehouse", "'warehouse' is taken"),
            ("status", " uses the word 'status' already"),
        ],
    )
    def test_a_name_that_can_not_be(self, name, why):
        before = sorted(REPOSITORY.glob("include/sources/*"))
        with pytest.raises(NotMade, match=re.escape(why)):
            write_source(name)
        assert sorted(REPOSITORY.glob("include/sources/*")) == before

    def test_tables_of_no_source_and_of_one_by_hand(self):
        with pytest.raises(NotMade, match=r"there is no source 'acme'\. Begin it with `make new-source NAME=acme`"):
            write_tables("acme")
        with pytest.raises(NotMade, match="the migration of repairshopr is written by hand"):
            write_tables("repairshopr")

    def test_by_the_command(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["new_source", "flex"])
        assert new_source.main() == 1
        assert capsys.readouterr().err == "new-source: 'flex' is taken. Take another name\n"

    def test_a_second_time(self, copy):
        with pytest.raises(AssertionError, match="new-source: 'acme' is taken"):
            run(copy, "stack.new_source", "acme")


MISNAMED = "from types import SimpleNamespace\nSOURCE = SimpleNamespace(name='shop')"
HEAD = "from include.warehouse.table import Column, Table\n"


class TestWrongDeclaration:
    """One line: file and line, what is wrong, what to do."""

    @pytest.fixture
    def package(self, tmp_path, monkeypatch) -> Iterator[Path]:
        """The file of a source `broken`, which is registered."""
        path = tmp_path / "include" / "sources" / "broken" / "__init__.py"
        path.parent.mkdir(parents=True)
        monkeypatch.setattr(new_source, "REPOSITORY", tmp_path)
        monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(path.parents[1])])
        yield path
        sys.modules.pop("include.sources.broken", None)

    @pytest.mark.parametrize(
        ("code", "why"),
        [
            (
                HEAD + 'T = Table("broken", "tools", (Column("id"),))',
                "2: table broken.tools names columns that it doesn't have: updated_at (the default of `version`: say"
                " version=None, or another column). The end of docs/new-source.md says what to do about it",
            ),
            (HEAD + 'T = Table("broken")', "2: Table.__init__() missing 2 required positional arguments: 'name' and"),
            (HEAD + "T = (", "2: '(' was never closed. Mend that line"),
            ("from include.warehouse.table import Colum", "1: cannot import name 'Colum' from 'include.warehouse."),
            ("\n\nT = Tabel()", "3: NameError: name 'Tabel' is not defined. Mend that line"),
            (
                MISNAMED,
                "1: include/sources/broken declares a source shop: give both the same name. The end of docs/new-",
            ),
            ("", "1: AttributeError: module 'include.sources.broken' has no attribute 'SOURCE'"),
        ],
        ids=["value", "type", "syntax", "import", "name", "another", "none"],
    )
    def test_is_told_by_tables_and_contract(self, package, code, why):
        package.write_text(code)
        for attempt, error in (
            (declaration, WrongDeclaration),
            (lambda name: stubbed(name, {}), pytest.Collector.CollectError),
        ):
            with pytest.raises(error) as caught:
                attempt("broken")
            assert str(caught.value).startswith(f"include/sources/broken/__init__.py:{why}")
            assert "\n" not in str(caught.value)

    def test_by_the_command(self, package, monkeypatch, capsys):
        package.write_text("SOURCE = 1 +")
        monkeypatch.setattr(new_source, "write_tables", declaration)
        monkeypatch.setattr(sys, "argv", ["new_source", "broken", "--tables"])
        assert new_source.main() == 1
        told = capsys.readouterr().err
        assert told == "new-source: include/sources/broken/__init__.py:1: invalid syntax. Mend that line\n"

    @pytest.mark.parametrize(
        ("path", "change", "why"),
        [
            (f"include/sources/{BEGUN}/__init__.py", ("updated_at", "changed"), "names columns that it doesn't have"),
            (f"tests/contract/{BEGUN}.py", ('"name"', '"nick"'), "has the field name of column name: add it"),
            (
                f"tests/contract/{BEGUN}.py",
                ('{"customers": [', '{"custom": ['),
                "of the list of acme.customers can't be",
            ),
            (f"tests/contract/{BEGUN}.py", ("ANSWERS)", "ANSWER)"), "NameError: name 'ANSWER' is not defined"),
        ],
        ids=["declaration", "record", "answer", "adapter"],
    )
    def test_ends_the_contract_before_its_first_test(self, copy, postgres, path, change, why):
        file = copy / path
        before = file.read_text()
        file.write_text(before.replace(*change, 1))
        try:
            with pytest.raises(AssertionError, match=rf"Exit: {path}.*{why}") as caught:
                passed(copy, BEGUN, postgres)
        finally:
            file.write_text(before)
        assert "Traceback" not in str(caught.value)


def test_tells_each_file_that_it_has_written(copy):
    assert [line.split()[0] for line in WRITTEN[TAUGHT].splitlines() if line.startswith("  ")] == [
        "include/sources/lendesk/__init__.py",
        "dags/lendesk_sync.py",
        "dags/lendesk_reconcile.py",
        "tests/contract/lendesk.py",
        *(
            path.relative_to(copy).as_posix()
            for path in copy.glob("include/warehouse/migrations/versions/*_lendesk.py")
        ),
        "docs/dags.md",
        "README.md",
        "docs/fields.md",
        "docs/lists.md",
    ]


def messages(module: object) -> Iterator[str]:
    """The texts by which a declaration is refused, as far as they don't depend on it."""
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        raised = isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.func.id == "ValueError"
        if raised:
            yield from texts(node.exc.args)
        elif isinstance(node, ast.FunctionDef) and node.name.endswith("_mistake"):
            yield from texts([each.value for each in ast.walk(node) if isinstance(each, ast.Return)])


def texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value.strip(" :.,")) > 3:
                yield part.value.strip(" :.,")


@pytest.mark.parametrize(
    ("module", "least"),
    [(entity, 15), (lookup_request, 5), (lookup_mistakes, 2), (listing, 1), (derive, 1), (source, 5), (tokens, 2)],
    ids=lambda each: each.__name__.rpartition(".")[2] if hasattr(each, "__name__") else None,
)
def test_the_tutorial_explains_every_refusal(module, least):
    found = set(messages(module)) - {"shown"}
    assert len(found) >= least
    assert [text for text in sorted(found) if text not in PAGE] == []


@pytest.mark.parametrize(
    "text",
    [
        "columns that it doesn't have",
        "its key in another order than its columns",
        "is a number: read it by unix_time if it counts seconds, or say",
        "which is no reader: take one of text, integer, decimal, boolean, instant",
        "which is no time: read it by instant, or say version=None",
        "changes: leave out compared=False",
    ],
)
def test_the_tutorial_explains_what_a_table_refuses(text):
    assert text in PAGE
    assert text in Path(table.__file__).read_text()
