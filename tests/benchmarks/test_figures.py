"""The report: several rounds as medians and spreads, and the plots of peers."""

from dataclasses import replace

import pytest

from benchmarks.figures import Aim, Figure, Ratio, Section, markdown, merged, plot
from benchmarks.measure import Measured
from benchmarks.peers.singer import messages

TOOK = Measured(None, wall=2.0, cpu=1.5, postgres_cpu=0.25, memory=7.4)


def section(wall: float, memory: float | None = 7.4) -> Section:
    took = replace(TOOK, wall=wall, memory=memory)
    aim = Aim("< 3 s", wall, at_most=3)
    ours = Figure("ours", took, 100, 5, stands=wall + 1, ratio=Ratio("{:.1f} x, {:.0f} MB", (wall, 1)), aim=aim)
    return Section("Part", "Note.", [ours, Figure("gone", remark="not measured")])


def test_report_leaves_out_empty_columns():
    figures = [
        Figure("fast", TOOK, 1_000_000, aim=Aim("< 3 s", 2.0, at_most=3)),
        Figure("gone", remark="not measured"),
    ]
    report = markdown([Section("Part", "Note.", figures)], "2 cores", 5, 90.4).splitlines()
    assert report[2].startswith("Written by `make bench` on 2 cores, in 90 minutes: 5 rounds,")
    assert report[-4:] == [
        "| what | rows/s | wall s | CPU s | Postgres CPU s | peak MB | aim | remark |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| fast | 500,000 | 2.00 | 1.50 | 0.25 | 7 | < 3 s met |  |",
        "| gone |  |  |  |  |  |  | not measured |",
    ]


def test_rounds_become_their_medians_and_the_spread():
    (found,) = merged([[section(wall)] for wall in (2.0, 9.0, 2.5, 1.0, 4.0)])
    ours, gone = found.figures
    assert (ours.measured.wall, ours.walls, ours.rate, ours.requests, ours.stands) == (2.5, (1.0, 9.0), 40, 5, 3.5)
    assert str(ours.ratio) == "2.5 x, 1 MB"
    assert str(ours.aim) == "< 3 s met"
    assert gone == Figure("gone", remark="not measured")
    assert "1.00 to 9.00" in ours.cells()


def test_one_round_has_no_spread():
    assert merged([[section(2.0)]])[0].figures[0].walls is None


def test_what_one_round_does_not_know_has_no_median():
    (found,) = merged([[section(1.0)], [section(2.0, memory=None)]])
    assert found.figures[0].measured.memory is None


def test_rounds_with_other_lines_are_no_rounds():
    with pytest.raises(ValueError, match="zip"):
        merged([[section(1.0)], [replace(section(1.0), figures=[])]])


@pytest.mark.parametrize(
    ("aim", "met"),
    [
        (Aim("", 3, at_most=3), True),
        (Aim("", 3.1, at_most=3), False),
        (Aim("", 2.9, at_least=3), False),
        (Aim("", 3, at_least=3), True),
    ],
)
def test_aim_is_met_up_to_its_limit(aim, met):
    assert aim.met is met


def test_plot_shows_ours_beside_a_peer():
    ours, peer = Figure('ours "x"', TOOK, 100), Figure("peer", replace(TOOK, wall=4.0), 100, peer=True)
    assert plot(Section("Load", "", [ours, peer]))[2:-1] == [
        "xychart-beta horizontal",
        '    title "Load: rows a second, more is better"',
        '    x-axis ["ours x", "peer"]',
        "    bar [50, 25]",
    ]
    assert plot(Section("Load", "", [ours, ours])) == []
    assert plot(Section("Load", "", [ours, Figure("peer", peer=True)])) == []


def test_tap_tells_its_schema_first_and_a_state_after_each_page():
    pages = [
        {"line_items": [{"id": 1, "price": 1.5}, {"id": 2, "price": None}]},
        {"line_items": [{"id": 3, "price": 2}]},
    ]
    found = list(messages(pages))
    assert [message["type"] for message in found] == ["SCHEMA", "RECORD", "RECORD", "STATE", "RECORD", "STATE"]
    kinds = {name: each["type"][-1] for name, each in found[0]["schema"]["properties"].items()}
    assert kinds == {"id": "integer", "price": "number"}
    assert found[-1]["value"] == {"line_items": {"page": 2}}
