"""What becomes of a request to Flex: proven, refused, or not known."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from include.api.client import ApiClient
from include.api.errors import FixConfiguration, NotFound, TryLater
from include.simulators.flex import SPOILS, Fault, Mutation, Simulator, running
from include.simulators.flex.config import ROLES
from include.sources.flex import calls
from include.sources.flex.calls import FINAL, Outcome, Stopped
from include.sources.flex.rows import Unreadable, duplicates

ADD, ROWS, LINE = "line-item/*/add-resource/*", "line-item/*/row-data", "line-item/*"
UNKNOWN = {
    "202": Fault(kind="status", status=202, committed=True),
    "408": Fault(kind="status", status=408, committed=True),
    "425": Fault(kind="status", status=425, committed=True),
    "500": Fault(kind="status", status=500, committed=True),
    "504": Fault(kind="status", status=504, committed=True),
    "a redirect": Fault(kind="status", status=302, location="http://127.0.0.1:9/"),
    "a timeout": Fault(kind="hang", committed=True),
    "a drop": Fault(kind="drop", committed=True),
    "a cut": Fault(kind="cut"),
    "a page": Fault(kind="status", status=200, html=True, committed=True),
}


def ordered(fault: Fault, path: str, method: str) -> Fault:
    return Fault(
        **{name: getattr(fault, name) for name in fault.__dataclass_fields__} | {"path": path, "method": method}
    )


def client(url: str, token: str, **options) -> ApiClient:
    return ApiClient(
        "flex",
        f"{url}/f5/api",
        headers={"X-Auth-Token": token},
        timeout=(2, 0.5),
        attempts=2,
        backoff=(0.01, 0.02),
        **options,
    )


@pytest.fixture(scope="module")
def account() -> Iterator[Simulator]:
    with running() as simulator:
        yield simulator


@pytest.fixture
def flex(account: Simulator) -> Simulator:
    account.control.clear()
    account.control.set(per_hour=None, per_day=None)
    account.control.reset_counters()
    return account


@pytest.fixture
def api(flex: Simulator) -> Iterator[ApiClient]:
    with client(flex.url, flex.token) as api:
        yield api


@pytest.fixture
def element(flex: Simulator) -> UUID:
    return flex.control.create_element()


def crew(flex: Simulator, element: UUID) -> dict[UUID, tuple[UUID, UUID | None]]:
    return {line.id: (line.resource_id, line.role_id) for line in flex.control.lines(element) if line.kind == "contact"}


class TestLines:
    def test_are_those_on_the_element(self, flex, api, element):
        for _ in range(6):
            flex.control.mutate(Mutation("add", element, role=ROLES[0]))
        found = calls.lines(api, element, [])
        assert {e.line_id: (e.resource_id, e.role_id) for e in found if e.kind == "contact"} == crew(flex, element)
        assert len(found) == len(flex.control.lines(element))

    @pytest.mark.parametrize("spoil", [each for each in SPOILS if each not in ("resource_twice", "inventory")])
    def test_that_prove_nothing_are_unreadable(self, flex, api, element, spoil):
        flex.control.mutate(Mutation("add", element))
        flex.control.fault(Fault(kind=spoil, path=ROWS))
        with pytest.raises(Unreadable):
            calls.lines(api, element, [])

    def test_of_ours_that_are_no_contact_are_unreadable(self, flex, api, element):
        [[line_id]] = flex.control.mutate(Mutation("gear", element))
        with pytest.raises(Unreadable, match="no contact"):
            calls.lines(api, element, [line_id])

    def test_show_a_resource_that_is_there_twice(self, flex, api, element):
        flex.control.mutate(Mutation("add", element))
        flex.control.fault(Fault(kind="resource_twice", path=ROWS))
        assert len(duplicates(calls.lines(api, element, []))) == 1

    def test_that_are_not_answered_are_no_empty_crew(self, flex, api, element):
        flex.control.fault(Fault(kind="status", status=500, path=ROWS, times=None))
        with pytest.raises(TryLater):
            calls.lines(api, element, [])
        flex.control.clear()
        with pytest.raises(NotFound):
            calls.lines(api, uuid4(), [])


class TestAdd:
    def test_tells_the_line_in_every_shape_of_the_answer(self, flex, api, element):
        # The five shapes are by chance of the line's id.
        outcomes = [calls.add(api, element, uuid4()) for _ in range(25)]
        assert {outcome.kind for outcome in outcomes} == {"done"}
        assert {outcome.line_id for outcome in outcomes} == {*crew(flex, element)}

    @pytest.mark.parametrize("status", sorted(FINAL - {401, 403}))
    def test_is_refused(self, flex, api, element, status):
        flex.control.fault(Fault(kind="status", status=status, path=ADD))
        outcome = calls.add(api, element, uuid4())
        assert (outcome.kind, outcome.line_id, crew(flex, element)) == ("refused", None, {})
        assert str(status) in outcome.reason
        assert "may have taken effect" not in outcome.reason
        assert flex.control.counters().total("add-resource") == 1

    @pytest.mark.parametrize("status", [401, 403])
    def test_without_the_right_stops_everything(self, flex, api, element, status):
        flex.control.fault(Fault(kind="status", status=status, path=ADD))
        with pytest.raises(Stopped, match=str(status)) as caught:
            calls.add(api, element, uuid4())
        assert isinstance(caught.value, FixConfiguration)

    @pytest.mark.parametrize("name", UNKNOWN)
    def test_is_unknown_and_sent_once(self, flex, api, element, name):
        flex.control.fault(ordered(UNKNOWN[name], ADD, "POST"))
        outcome = calls.add(api, element, uuid4())
        assert (outcome.kind, outcome.line_id) == ("unknown", None)
        assert "\n" not in outcome.reason
        assert sum(sum(each.values()) for each in flex.control.counters().adds.values()) == 1

    def test_with_half_an_answer_is_unknown(self, flex, api, element):
        flex.control.fault(Fault(kind="broken_json", path=ADD))
        assert calls.add(api, element, uuid4()).kind == "unknown"
        assert len(crew(flex, element)) == 1

    @pytest.mark.parametrize(
        "data",
        [
            *(None, [], {}, {"id": None}, {"id": 7}, {"id": "x"}, {"data": []}, {"addedResourceLineIds": []}),
            {"addedResourceLineIds": [str(UUID(int=1)), str(UUID(int=2))]},
            {"id": str(UUID(int=1)), "lineItemId": str(UUID(int=2))},
        ],
    )
    def test_whose_answer_names_no_line_is_unknown(self, element, data):
        class Api:
            name = "flex"

            def send(self, request):
                return calls.Answer(data)

        assert calls.add(Api(), element, uuid4()).kind == "unknown"

    def test_that_was_never_sent_is_refused(self, flex, element):
        with client(flex.url, flex.token, budget_seconds=-1) as api:
            outcome = calls.add(api, element, uuid4())
        assert (outcome.kind, flex.control.counters().total()) == ("refused", 0)


class TestRemove:
    def test_deletes_the_line_alone(self, flex, api, element):
        first, second = (calls.add(api, element, uuid4()).line_id for _ in range(2))
        assert calls.remove(api, first) == Outcome("done")
        assert [*crew(flex, element)] == [second]

    def test_of_a_line_that_is_gone_is_done(self, api):
        assert calls.remove(api, uuid4()) == Outcome("done")

    def test_of_a_line_that_only_a_page_says_is_gone_is_not(self, flex, api, element):
        line_id = calls.add(api, element, uuid4()).line_id
        flex.control.fault(Fault(kind="status", status=404, html=True, path=LINE, method="DELETE"))
        assert calls.remove(api, line_id).kind == "refused"

    @pytest.mark.parametrize("name", [name for name in UNKNOWN if name not in ("a cut",)])
    def test_is_unknown(self, flex, api, element, name):
        line_id = calls.add(api, element, uuid4()).line_id
        flex.control.fault(ordered(UNKNOWN[name], LINE, "DELETE"))
        assert calls.remove(api, line_id).kind == "unknown"

    def test_is_refused(self, flex, api, element):
        line_id = calls.add(api, element, uuid4()).line_id
        flex.control.fault(Fault(kind="status", status=409, path=LINE, method="DELETE"))
        assert calls.remove(api, line_id).kind == "refused"
        assert [*crew(flex, element)] == [line_id]


class TestRole:
    def test_is_written(self, flex, api, element):
        line_id = calls.add(api, element, uuid4()).line_id
        assert calls.set_role(api, element, line_id, ROLES[1]) == Outcome("done")
        assert crew(flex, element)[line_id][1] == ROLES[1]

    def test_of_no_line_or_none_of_the_account_is_refused(self, flex, api, element):
        line_id = calls.add(api, element, uuid4()).line_id
        assert calls.set_role(api, element, uuid4(), ROLES[1]).kind == "refused"
        assert calls.set_role(api, element, line_id, uuid4()).kind == "refused"

    @pytest.mark.parametrize("name", UNKNOWN)
    def test_is_unknown_and_not_repeated(self, flex, api, element, name):
        line_id = calls.add(api, element, uuid4()).line_id
        flex.control.fault(ordered(UNKNOWN[name], ROWS, "POST"))
        assert calls.set_role(api, element, line_id, ROLES[1]).kind == "unknown"
        assert flex.control.counters().total("POST line-item/{id}/row-data") == 1
