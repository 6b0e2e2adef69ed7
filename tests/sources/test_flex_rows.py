"""Rows of a crew call are read in every shape that was seen, and any doubt about them ends the read."""

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.api.errors import FixConfiguration
from include.simulators.flex import SPOILS, Config
from include.simulators.flex.rows import Shapes, spoilt
from include.simulators.flex.store import Store
from include.sources.flex.roles import Role, roles_of, tier_of
from include.sources.flex.rows import Item, Line, Unreadable, duplicates, items, read, require_record

LINE, OTHER_LINE, TECH, OTHER_TECH, ROLE = (UUID(int=number) for number in range(1, 6))
CODES = ("contact", "business-role")

KEYS = st.sampled_from(["id", "type", "resource", "resourceId", "children", "leaf"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["contact", "inventory", str(TECH)]),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


def row(**fields: Any) -> dict[str, Any]:
    """A contact's row; a field that is given as None isn't in it."""
    whole = {"id": str(LINE), "resourceId": str(TECH), "type": "contact", "children": []} | fields
    return {key: value for key, value in whole.items() if value is not None}


def header(*children: Any, **fields: Any) -> dict[str, Any]:
    whole = {"id": str(OTHER_LINE), "type": "header", "leaf": not children, "children": list(children)}
    return whole | fields


class TestRows:
    @given(seed=st.integers(0, 1_000))
    def test_are_the_lines_of_a_crew_call_in_every_shape(self, seed):
        store = Store(Config(seed=seed, elements=1, crew=6))
        (element,) = store.elements
        lines = store.lines(element)
        answer = json.loads(msgspec.json.encode(Shapes(seed).rows(lines, None, CODES)))
        ours = [line.id for line in lines if line.kind == "contact"]
        kinds = {"contact": "contact", "inventory": "other", "header": "other"}
        expected = {Line(line.id, kinds[line.kind], line.resource_id, line.role_id) for line in lines}
        found = read(answer, ours)
        assert set(found) == expected
        assert len(found) == len(lines)
        assert duplicates(found) == {}

    @pytest.mark.parametrize("kind", [kind for kind in SPOILS if kind != "resource_twice"])
    @pytest.mark.parametrize("crew", [0, 4])
    def test_that_are_spoilt_are_unreadable(self, kind, crew):
        store = Store(Config(elements=1, crew=crew))
        (element,) = store.elements
        lines = store.lines(element)
        body = msgspec.json.encode(Shapes(1).rows(lines, None, CODES))
        # The simulator makes up a row where there is no contact; its line may be ours, too.
        ours = [line.id for line in lines if line.kind == "contact"] + [UUID("00000000-0000-4000-8000-000000000001")]
        assert len(read(json.loads(body), ours)) == len(lines)
        with pytest.raises(Unreadable):
            read(json.loads(spoilt(body, kind, None)), ours)

    def test_with_a_resource_on_two_lines_are_kept(self):
        lines = read(
            [row(), header(row(id=str(UUID(int=9)))), row(id=str(UUID(int=8)), resourceId=str(OTHER_TECH))], []
        )
        assert duplicates(lines) == {TECH: [lines[0], lines[2]]}

    def test_that_are_none_are_an_empty_crew_call(self):
        assert read([], [LINE]) == []

    def test_come_before_those_under_them(self):
        inner = header(row(), id=str(UUID(int=7)))
        assert [line.line_id for line in read([header(inner)], [])] == [OTHER_LINE, UUID(int=7), LINE]

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"resourceId": None, "resource": {"resourceId": str(TECH)}}, TECH),
            ({"resource": {"id": str(TECH).upper(), "resourceId": str(TECH)}}, TECH),
            ({"resourceId": "", "resource": {"id": str(TECH)}}, TECH),
            ({"resource": {}}, TECH),
            ({"type": None, "managedResourceLineItemType": "contact", "leaf": True, "children": None}, TECH),
        ],
    )
    def test_tell_the_resource(self, fields, expected):
        assert [line.resource_id for line in read([row(**fields)], [LINE])] == [expected]

    @pytest.mark.parametrize(
        ("fields", "role_id", "told"),
        [
            ({"business-role": str(ROLE)}, ROLE, True),
            ({"business-role": {"data": str(ROLE)}}, ROLE, True),
            ({"business-role": {"data": None}}, None, True),
            ({"business-role": None}, None, True),
            ({"business-role": ""}, None, True),
            ({}, None, False),
            ({"business-role": {}}, None, False),
            ({"business-role": "FOH"}, None, False),
            ({"business-role": {"data": {"id": str(ROLE)}}}, None, False),
            ({"business-role": ["x"]}, None, False),
            ({"business-role": 7}, None, False),
        ],
        ids=str,
    )
    def test_tell_the_role_or_none_or_nothing_of_it(self, fields, role_id, told):
        assert read([{**row(), **fields}], []) == [Line(LINE, "contact", TECH, role_id, role_told=told)]

    @pytest.mark.parametrize(
        "answer", [None, {}, {"rows": []}, "[]", 0, [None], [[]], ["row"], [header(None)]], ids=str
    )
    def test_that_are_no_array_of_objects_are_unreadable(self, answer):
        with pytest.raises(Unreadable):
            read(answer, [])

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"id": None}, "a row has no line id"),
            ({"id": ""}, "a row has no line id"),
            ({"id": 5}, "a row's id is no id"),
            ({"id": "?"}, "a row's id is no id"),
            ({"resourceId": None}, "contact without a resource"),
            ({"resourceId": "", "resource": {"id": ""}}, "contact without a resource"),
            ({"resourceId": {"id": str(TECH)}}, "resourceId is no id"),
            ({"resource": str(TECH)}, "resource of line .* is no object"),
            ({"resource": {"id": str(OTHER_TECH)}}, "names several resources"),
            ({"resourceId": None, "resource": {"id": str(TECH), "resourceId": str(OTHER_TECH)}}, "several resources"),
            ({"type": None}, "has no type"),
            ({"type": None, "resourceId": None}, "has no type"),
            ({"type": ""}, "has no type"),
            ({"type": {"data": "contact"}}, "has no type"),
            ({"managedResourceLineItemType": "inventory"}, "has two types"),
            ({"type": "Contact"}, "a type that isn't known"),
            ({"type": "Contact", "resourceId": None}, "a type that isn't known"),
            ({"type": "header"}, "a type that isn't known"),
            ({"type": "inventory"}, "is one of ours, but no contact"),
            ({"type": "header", "resourceId": None}, "is one of ours, but no contact"),
            ({"children": {}}, "under line .* isn't shown"),
            ({"children": "none"}, "under line .* isn't shown"),
            ({"children": None, "leaf": False}, "under line .* isn't shown"),
            ({"children": None, "container": True}, "under line .* isn't shown"),
            ({"children": None, "leaf": "false"}, "under line .* isn't shown"),
            ({"children": None, "leaf": 0}, "under line .* isn't shown"),
            ({"children": None, "container": "true"}, "under line .* isn't shown"),
            ({"leaf": "no"}, "in no way that is known"),
            ({"container": 2}, "in no way that is known"),
            ({"children": [row()]}, f"line {LINE} is there twice"),
        ],
        ids=str,
    )
    def test_in_doubt_are_unreadable_wherever_they_are(self, fields, reason):
        for answer in ([row(**fields)], [header(row(**fields))]):
            with pytest.raises(Unreadable, match=reason) as unreadable:
                read(answer, [LINE])
            assert "\n" not in str(unreadable.value)

    def test_of_strangers_may_be_gear(self):
        assert read([row(type="inventory")], []) == [Line(LINE, "other", TECH)]

    @given(ANYTHING)
    def test_of_any_json_are_lines_or_unreadable(self, answer):
        try:
            lines = read(answer, [])
        except Unreadable:
            return
        assert isinstance(answer, list)
        assert len({line.line_id for line in lines}) == len(lines)


class TestRecord:
    """A crew call's own, with what is on it."""

    @given(seed=st.integers(0, 200))
    def test_shows_the_lines_of_a_crew_call_in_every_shape(self, seed):
        store = Store(Config(seed=seed, elements=1, crew=6))
        (element,) = store.elements
        lines, keys, shapes = store.lines(element), ("children", "lineItems", "data.children"), Shapes(seed)
        record = {"id": element, **shapes.nested(element, shapes.items(lines, None, keys), keys)}
        found = items(json.loads(msgspec.json.encode(record)), element)
        assert {*found} == {line.id for line in lines}
        told = [(line, found[line.id]) for line in lines]
        assert all(item.kind in (None, line.kind) for line, item in told)
        assert all(item.resource_id in (None, line.resource_id) for line, item in told)

    @pytest.mark.parametrize(
        "record",
        [
            *(None, [], "x", {}, {"id": str(LINE)}, {"children": []}, {"id": str(TECH), "children": []}),
            {"id": str(LINE), "lineItemId": str(TECH), "children": []},
            {"id": str(LINE), "children": [], "exceptionMessage": "Something went wrong"},
            {"id": str(LINE), "children": [], "errors": ["Something went wrong"]},
            {"id": str(LINE), "children": [], "lineItems": []},
            {"id": str(LINE), "children": {}},
            {"id": str(LINE), "children": [None]},
            {"id": str(LINE), "children": [{}]},
            {"id": str(LINE), "children": [{"id": str(TECH)}, {"id": str(TECH)}]},
            {"id": str(LINE), "children": [{"id": str(TECH), "leaf": False}]},
            {"id": str(LINE), "children": [{"id": str(TECH), "container": True}]},
            {"id": str(LINE), "children": [{"id": str(TECH), "leaf": "false"}]},
            {"id": str(LINE), "children": [{"id": str(TECH), "container": "true"}]},
            {"id": str(LINE), "children": [{"id": str(TECH), "type": 7}]},
            {"id": str(LINE), "children": [{"id": str(TECH), "resourceId": str(TECH), "resource": {"id": str(LINE)}}]},
        ],
        ids=str,
    )
    def test_in_doubt_is_unreadable(self, record):
        with pytest.raises(Unreadable) as unreadable:
            items(record, LINE)
        assert "\n" not in str(unreadable.value)

    @pytest.mark.parametrize(
        ("item", "may_be"),
        [
            (Item(), True),
            (Item("contact"), True),
            (Item("Contact"), True),
            (Item("contact-line-item"), True),
            (Item("person", TECH), True),
            (Item("inventory", TECH), False),
            (Item("header"), False),
        ],
        ids=str,
    )
    def test_may_have_a_word_of_its_own_for_contacts(self, item, may_be):
        assert item.may_be_contact == may_be

    @pytest.mark.parametrize(
        "told",
        [
            {"leaf": True, "container": True},
            {"leaf": True, "children": []},
            {"leaf": False, "children": []},
            {"leaf": 0, "container": 1, "children": []},
            {"children": []},
            {},
        ],
        ids=str,
    )
    def test_with_an_empty_header_is_read(self, told):
        header = {"id": str(TECH), "type": "header", **told}
        assert items({"id": str(LINE), "children": [header]}, LINE) == {TECH: Item("header")}
        assert read([header], []) == [Line(TECH, "other", None)]

    @pytest.mark.parametrize(
        "told", [{"leaf": False}, {"container": True}, {"leaf": False, "container": True}], ids=str
    )
    def test_of_an_empty_crew_call_is_read(self, told):
        assert items({"id": str(LINE), "children": [], **told}, LINE) == {}

    @given(ANYTHING)
    def test_of_any_json_is_one_or_unreadable(self, answer):
        for read_it in (items, require_record):
            try:
                read_it(answer, LINE)
            except Unreadable:
                continue
            assert isinstance(answer, dict)

    def test_nested_as_deep_as_may_be_is_read(self):
        deep: list = []
        for number in range(100, 20_000):
            deep = [{"id": str(UUID(int=number)), "type": "header", "children": deep}]
        assert len(items({"id": str(LINE), "children": deep}, LINE)) == len(read(deep, [])) == 19_900


IDS = {"responsible": UUID(int=11), "specialist": UUID(int=12), "technician": UUID(int=13)}
SETTINGS = {"business_roles": {"sound": {tier: str(role_id) for tier, role_id in IDS.items()}, "video": {}}}


class TestRoles:
    @pytest.mark.parametrize(
        ("code", "tier"),
        [
            ("FOH-R", "responsible"),
            ("MON-E", "specialist"),
            ("FOH-T", "technician"),
            ("PA-T-R", "responsible"),
            ("PA-T-E2", "specialist"),
            ("SYS-TECH-E", "specialist"),
            ("FOH", None),
            ("", None),
            ("R", None),
        ],
    )
    def test_tier_is_the_first_mark_of_the_order_in_the_code(self, code, tier):
        assert tier_of(code) == tier

    def test_are_the_ids_of_the_connection(self):
        assert roles_of(SETTINGS).role("sound", "FOH-E") == Role(IDS["specialist"])

    @pytest.mark.parametrize("settings", [{}, {"business_roles": {}}, SETTINGS])
    def test_of_a_department_without_ids_are_skipped_and_told(self, settings):
        assert roles_of(settings).role("lights", "LX-R") == Role(
            None, "lights: business roles skipped, connection 'flex' names none for it"
        )

    def test_that_cant_be_told_are_skipped_and_told(self):
        roles = roles_of(SETTINGS)
        assert roles.role("sound", "FOH") == Role(
            None, "sound: business role skipped, code 'FOH' has none of -R, -E, -T"
        )
        assert roles.role("video", "CAM-T") == Role(
            None, "video: business role skipped, connection 'flex' names none for a technician"
        )

    @pytest.mark.parametrize(
        "wrong", [None, [], {"sound": None}, {"sound": {"boss": str(ROLE)}}, {"sound": {"responsible": "x"}}], ids=str
    )
    def test_that_are_not_usable_are_told_in_one_line(self, wrong):
        with pytest.raises(FixConfiguration, match="connection 'flex' names no usable business roles") as refused:
            roles_of({"business_roles": wrong})
        assert "\n" not in str(refused.value)
