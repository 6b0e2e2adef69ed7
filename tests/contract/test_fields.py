"""What the page of fields says of a source: declared, ignored and kept, and together all that the vendor sent."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

import psycopg
import pytest

from include.confidence import field_changes
from include.confidence.census import MAX_DEPTH
from include.confidence.policy import Verdict
from include.confidence.queries.field_census import EntityFields, read_fields, total_fields
from include.sources import get_source
from include.sources.answer_census import AnswerCensus
from include.sources.base import policies
from include.sources.mirror.entity import Entity
from include.sources.mirror.entity_census import counted_tables
from include.warehouse.field_path import join, split
from include.warehouse.pull import TooManyRefused
from include.warehouse.readers import structure, text
from include.warehouse.table import Table
from tests.contract.account import CountedAnswer, Run
from tests.contract.test_extra import Twisted
from tests.contract.test_mirrors import MIRRORS, REGISTRY, inside


def paths(
    value: Mapping[str, Any], whole: Collection[str], rows: Collection[Mapping[str, Any]], at: str = "", depth: int = 1
) -> Iterator[str]:
    """The path of each field of a record, some steps into it, as the page says.

    Nothing is in fields that are kept whole, nor in `rows` of other tables.
    """
    for name, each in value.items():
        path = join(at, name)
        yield path
        if path in whole or depth == MAX_DEPTH:
            if path not in whole and isinstance(each, list) and each:
                yield f"{path}[]"
            continue
        if isinstance(each, dict):
            yield from paths(each, whole, rows, path, depth + 1)
        elif isinstance(each, list) and each:
            yield f"{path}[]"
            for inner in each:
                if isinstance(inner, dict) and not any(inner.items() <= row.items() for row in rows):
                    yield from paths(inner, whole, rows, f"{path}[]", depth + 1)


def sent(entity: Entity, table: Table, records: list[Mapping[str, Any]]) -> set[str]:
    """The paths of all that a table is given: by its list, or inside its records."""
    counted = counted_tables(entity)
    rows = {part.table.name: inside(part, records) for part in entity.parts if part.table in counted}
    columns = [*table.columns, *(c for part in entity.parts if part.table not in counted for c in part.table.columns)]
    whole = {column.field or column.name for column in columns if column.read is structure}
    nested = [row for each in rows.values() for row in each]
    found = {path for record in rows.get(table.name, records) for path in paths(record, whole, nested)}
    return found - set(table.added)


def found(conn: Any, source: str) -> Mapping[str, EntityFields]:
    return {each.entity: each for each in read_fields(conn, source)}


@pytest.mark.parametrize("source", MIRRORS)
def test_what_is_declared_ignored_and_kept_is_what_the_vendor_sent(filled, conn, source):
    filled.scan()
    told = found(conn, source)
    for entity in filled.source.entities:
        records = filled.account.records(entity)
        for table in counted_tables(entity):
            fields = {field.path for field in told[table.name].fields} if table.name in told else set()
            assert fields == sent(entity, table, records), table.name
    for each in told.values():
        assert each.declared + each.ignored + each.kept == len(each.fields)
        assert all(field.reason for field in each.fields if field.state == "ignored")
    total = total_fields(told.values())
    assert total.fields == sum(len(each.fields) for each in told.values()) > 0
    assert total.declared + total.ignored + total.kept == total.fields


@pytest.mark.parametrize("source", REGISTRY)
def test_each_answer_whose_fields_are_not_counted_is_declared(source):
    """What is read of it, and what is not and why. A mirror counts its records, but not what is around them."""
    declared = get_source(source)
    assert declared.read_answers
    for answer in declared.read_answers:
        assert answer.read, answer.answer
    assert len({answer.answer for answer in declared.read_answers}) == len(declared.read_answers)
    tables = {table.name: table for entity in declared.entities for table in getattr(entity, "tables", ())}
    for name, words in declared.answer_names.items():
        assert words == tables[name].answers
    # Else nobody could tell which answer such a path is of.
    for table in tables.values():
        first = {split(path)[0] for path in table.ignored if len(split(path)) > 1}
        assert not table.answers or first <= set(table.answers), table.name


OTHERS = [name for name in REGISTRY if name not in MIRRORS]


@pytest.mark.parametrize("source", OTHERS)
def test_answers_whose_records_no_table_has_are_counted_too(filled, conn, source):
    filled.scan()
    told = found(conn, source)
    assert set(told) == {answer.counted_as for answer in filled.source.read_answers if answer.counted_as}
    for each in told.values():
        assert each.records
        assert (each.declared + each.ignored, each.kept) == (len(each.fields), 0)
        assert all(field.reason for field in each.fields if field.state == "ignored")


class TestChangedAnswers:
    """Of a source that is no mirror: what changes in the records of its answers is told, and a loss is warned of."""

    @pytest.fixture
    def answer(self, source) -> CountedAnswer:
        return import_module(f"tests.contract.{source}").ANSWER

    @pytest.fixture
    def told(self, filled, conn, source, answer, monkeypatch) -> Callable[..., tuple[list, Mapping[str, Any]]]:
        """Scans, changes the answers and scans again: what the second scan tells, and its metrics."""
        # Accounts of the contract are small.
        monkeypatch.setattr(field_changes, "MIN_OBJECTS", 2)
        original = AnswerCensus.count

        def told(change: Callable[[dict[str, Any]], None]) -> tuple[list, Mapping[str, Any]]:
            def count(census: AnswerCensus, name: str, records: list, nested: Collection = ()) -> None:
                records = [dict(record) for record in records]
                for record in records if name == answer.name else ():
                    change(record)
                original(census, name, records, nested)

            filled.scan()
            monkeypatch.setattr(AnswerCensus, "count", count)
            (summary,) = filled.scan()
            gates = [gate for policy in policies(filled.source.entities[0]) for gate in policy.gates(summary, [])]
            verdicts = {gate.metric: gate.verdict for gate in gates if gate.metric.startswith("declared_fields")}
            query = "SELECT kind, entity, path, state, detail FROM confidence.field_change ORDER BY change_id"
            return conn.execute(query).fetchall(), verdicts

        return told

    @pytest.mark.parametrize("source", OTHERS)
    def test_a_new_field(self, told, answer):
        changes, verdicts = told(lambda record: record.update({"new.field": 1}))
        assert changes == [("new", answer.name, '"new.field"', "ignored", "number")]
        assert set(verdicts.values()) == {Verdict.PASS}

    @pytest.mark.parametrize("source", OTHERS)
    def test_one_that_has_vanished(self, told, answer):
        changes, verdicts = told(lambda record: record.pop(answer.field))
        assert changes == [("vanished", answer.name, answer.field, "declared", "")]
        assert verdicts["declared_fields_vanished"] is Verdict.WARN

    @pytest.mark.parametrize("source", OTHERS)
    def test_one_of_another_type(self, told, answer):
        changes, verdicts = told(lambda record: record.update({answer.field: answer.unreadable}))
        changed = [change for change in changes if change[2] == answer.field]
        assert [(kind, state) for kind, _, _, state, _ in changed] == [("retyped", "declared")]
        assert changed[0][-1].endswith("; that can't be read")
        assert verdicts["declared_fields_retyped"] is Verdict.WARN

    @pytest.mark.parametrize("source", OTHERS)
    def test_a_new_word(self, told, answer):
        field, word, other = answer.words

        def change(record: dict[str, Any]) -> None:
            if record.get(field) == word:
                record[field] = other

        changes, _ = told(change)
        assert [(kind, path, detail) for kind, _, path, _, detail in changes] == [("new_code", field, other)]


@pytest.fixture
def lost(filled, conn, source, monkeypatch):
    """A source whose fields are known by a scan, and a field of its longest list that a column reads in all records.

    None if it has no such field, as in an account of a few records that are alike.
    """
    # Accounts of the contract are small.
    monkeypatch.setattr(field_changes, "MIN_OBJECTS", 2)
    filled.scan()
    filled.resume()
    found = [(len(records), entity, field) for entity, records, field in _always_there(filled)]
    if not found:
        return None
    _, entity, field = max(found, key=lambda each: each[0])
    changed = Run(Twisted(filled.account), conn, f"{source}_reconcile/contract")
    changed.account.chosen = lambda record: field in record and not record.keys().isdisjoint(("id", "tm_id"))
    return changed, entity, field


def _always_there(run: Run) -> Iterator[tuple[Entity, list[Mapping[str, Any]], str]]:
    for entity in run.source.entities:
        table, records = entity.table, run.account.records(entity)
        for column in table.columns:
            values = {record.get(column.dotted_path) for record in records} if column.read is text else set()
            free = column.name not in (*table.key, *table.required, *table.added) and column.uses is None
            if free and len(values) > 1 and None not in values and "" not in values:
                yield entity, records, column.dotted_path


@pytest.mark.parametrize("source", MIRRORS)
@pytest.mark.parametrize("renamed", [True, False])
def test_a_declared_field_that_the_vendor_takes_away_is_told_and_warned_of(lost, conn, renamed):
    if lost is None:
        return
    run, entity, field = lost
    new = f"{field}_2"

    def change(record: Mapping[str, Any]) -> dict[str, Any]:
        left = {name: value for name, value in record.items() if name != field}
        return {**left, new: record[field]} if renamed else left

    run.account.change = change
    summary = run.scan_one(entity.name)
    told = changes(conn, entity)
    assert told == [("renamed", field, new) if renamed else ("vanished", field, "")]
    assert (summary.metrics["declared_fields_vanished"], summary.incomplete) == (1, "")
    gates = [gate for policy in policies(entity) for gate in policy.gates(summary, [])]
    assert [gate.verdict for gate in gates if gate.metric == "declared_fields_vanished"] == [Verdict.WARN]


def changes(conn: psycopg.Connection, entity: Entity) -> list[tuple[str, str, str]]:
    query = "SELECT kind, path, detail FROM confidence.field_change WHERE entity = %s ORDER BY change_id"
    return conn.execute(query, [entity.table.name]).fetchall()


@pytest.mark.parametrize("source", MIRRORS)
def test_a_declared_field_of_another_type_is_told_even_if_no_record_can_be_stored(lost, conn):
    if lost is None:
        return
    run, entity, field = lost
    run.account.change = lambda record: record | {field: []}
    with suppress(TooManyRefused):
        run.scan_one(entity.name)
    assert changes(conn, entity) == [("retyped", field, "list, where it was text; that can't be read")]


@pytest.mark.parametrize("source", MIRRORS)
def test_a_new_word_of_an_enumeration_is_told(lost, conn, monkeypatch):
    if lost is None:
        return
    run, entity, field = lost
    # The field's own values may be no words.
    run.account.source = replace(run.source, enumerations={entity.table.name: (field,)})
    monkeypatch.setattr(field_changes, "REPEATED", 1)
    told = [("new_code", field, "UNHEARD OF")]
    for word in ("USUAL", "UNHEARD OF"):
        run.account.change = lambda record, word=word: record | {field: word}
        run.scan_one(entity.name)
        assert changes(conn, entity)[-1:] == told or word == "USUAL"
    run.scan_one(entity.name)
    assert [change for change in changes(conn, entity) if change in told] == told
