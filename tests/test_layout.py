"""The rules of the layers: who may import whom, who may name a source, what Airflow loads by itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow._shared.module_loading import find_path_from_directory
from airflow.configuration import conf

from include.sources import KINDS, REGISTRY, get_source
from stack.settings import REPOSITORY

# Each layer with the ones that it may import, besides itself. All other modules are above it.
MAY_IMPORT = {
    "include.api": set(),
    "include.warehouse": set(),
    "include.confidence": {"include.warehouse"},
    "include.sources": {"include.api", "include.warehouse", "include.confidence"},
    "include.simulators": set(),
    "plugins": {"include.api", "include.warehouse", "include.confidence", "include.sources"},
    "dags": {"plugins", "include.sources", "include.warehouse"},
    # The demo gives the simulator its orders and reads the evidence; pools and a new source's tables follow from the
    # sources.
    "stack": {"include.simulators", "include.sources", "include.warehouse", "include.confidence"},
}
OUR_FOLDERS = ("dags", "plugins", "include", "stack", "tests", "benchmarks")
SUBPACKAGES = ("include.sources", "include.simulators")

# Where a source is declared: the only places of the product that name it.
NAMED_IN = {
    *(f"dags/{source}_{job}.py" for source in REGISTRY for job in ("sync", "reconcile")),
}
NAMED_UNDER = (
    "include/warehouse/migrations/versions/",
    *(f"include/{part}/{source}/" for source in REGISTRY for part in ("sources", "simulators")),
)

# The first folders of paths that exist on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.$}*-])/(?:work|root|home|Users)/")
IGNORED = {".git", ".venv", ".stack", ".hypothesis", ".pytest_cache", ".ruff_cache", "__pycache__"}


def files(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    found = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.suffix in suffixes]
    return sorted(path for path in found if path.is_file() and not IGNORED & set(path.parts))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in the file; what is imported from one counts as its part."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = (*path.relative_to(REPOSITORY).parts[: -node.level], *filter(None, [base]))
                base = ".".join(parts)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part_of(module: str, parts: tuple[str, ...] = tuple(MAY_IMPORT)) -> str | None:
    return next((part for part in parts if module == part or module.startswith(f"{part}.")), None)


def offenders(paths: list[Path], forbidden: object) -> list[str]:
    return [f"{name_of(path)}: {module}" for path in paths for module in imports(path) if forbidden(path, module)]


def test_every_file_belongs_to_a_part():
    modules = [module_of(path) for path in files("dags", "plugins", "include", "stack")]
    assert [module for module in modules if module != "include" and not part_of(module)] == []


def test_imports_run_downwards():
    def upwards(path: Path, module: str) -> bool:
        own, other = part_of(module_of(path)), part_of(module)
        return other not in (None, own) and other not in MAY_IMPORT[own]

    assert offenders(files(*(part.replace(".", "/") for part in MAY_IMPORT)), upwards) == []


def test_nothing_but_tests_imports_tests():
    paths = files("dags", "plugins", "include", "stack")
    assert offenders(paths, lambda _, module: module.split(".")[0] in ("tests", "benchmarks")) == []


def test_include_and_stack_know_nothing_of_airflow():
    assert offenders(files("include", "stack"), lambda _, module: module.split(".")[0] == "airflow") == []


def test_tasks_leave_the_metadata_database_alone():
    """Airflow's models are its database; tasks reach it by the REST API or the Task SDK. Its web server may."""
    models = ("airflow.models", "airflow.settings", "airflow.utils.session")
    paths = [path for path in files("dags", "plugins") if not name_of(path).startswith("plugins/pages/")]
    assert offenders(paths, lambda _, module: module.startswith(models)) == []


@pytest.mark.parametrize("package", SUBPACKAGES)
def test_sources_and_simulators_never_import_each_other(package):
    """Nor does what they share import one of them."""
    inner = tuple(f"{package}.{source}" for source in REGISTRY)

    def sideways(path: Path, module: str) -> bool:
        own, other = part_of(module_of(path), inner), part_of(module, inner)
        return other not in (None, own)

    assert offenders(files(package.replace(".", "/")), sideways) == []


def test_every_package_beside_the_kinds_is_a_registered_source():
    packages = {path.parent.name for path in (REPOSITORY / "include" / "sources").glob("*/__init__.py")}
    assert packages == {*REGISTRY, *KINDS}
    assert {source: get_source(source).name for source in REGISTRY} == {source: source for source in REGISTRY}


@pytest.mark.parametrize("source", REGISTRY)
def test_no_source_is_named_outside_its_own_files(source):
    name = re.compile(rf"(?<![^\W_]){source}(?![^\W_])", re.IGNORECASE)
    paths = files("dags", "plugins", "include", suffixes=(".py", ".json", ".sql", ".mako"))
    naming = [name_of(path) for path in paths if name.search(path.read_text())]
    assert [path for path in naming if path not in NAMED_IN and not path.startswith(NAMED_UNDER)] == []


@pytest.mark.parametrize("source", REGISTRY)
def test_every_source_has_its_migration(source):
    versions = REPOSITORY / "include" / "warehouse" / "migrations" / "versions"
    assert len(list(versions.glob(f"*_{source}.py"))) >= 1


def test_airflow_imports_the_registration_of_the_pages_and_nothing_else_by_itself():
    """It would import every module under plugins/ in each of its processes, that of the web server included."""
    found = find_path_from_directory(
        str(REPOSITORY / "plugins"), ".airflowignore", conf.get_mandatory_value("core", "DAG_IGNORE_FILE_SYNTAX")
    )
    loaded = {Path(path).relative_to(REPOSITORY / "plugins").as_posix() for path in found if path.endswith(".py")}
    assert loaded == {"sync_confidence.py"}


def test_no_module_bends_the_import_path():
    bending = [
        name_of(path) for path in files(*OUR_FOLDERS) if re.search(r"sys\.path\.|sys\.path\s*\+?=", path.read_text())
    ]
    assert bending == []


def test_no_file_names_a_place_on_one_machine():
    texts = [path for path in REPOSITORY.rglob("*") if path.is_file() and not IGNORED & set(path.parts)]
    naming = [name_of(path) for path in texts if MACHINE_PATH.search(path.read_text(errors="ignore"))]
    assert naming == []


def test_no_test_is_skipped_or_expected_to_fail():
    def marks(path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "xfail", "importorskip"):
                yield f"{name_of(path)}:{node.lineno}"

    assert [mark for path in files("tests") for mark in marks(path)] == []
