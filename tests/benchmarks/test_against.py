"""Two versions, pair by pair: what is compared, what counts as worse, and the turns in which they are measured."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import against
from benchmarks.figures import Figure, Section
from benchmarks.measure import BenchError, Measured

# Benchmarks that read their figure from the folder that they run in, and write down whose turn it was.
FAKE = """
import json, pathlib, sys
pathlib.Path({turns!r}).open("a").write(pathlib.Path("version").read_text())
file = pathlib.Path(sys.argv[sys.argv.index("--json") + 1])
file.write_text(json.dumps({{"Part: work": {{"wall s": float(pathlib.Path({figure!r}).read_text())}}}}))
"""


def pair(base: float, now: float, measure: str = "wall s") -> tuple[dict, dict]:
    return {"Part: work": {measure: base}}, {"Part: work": {measure: now}}


def test_only_our_lines_are_compared_in_what_they_have():
    ours = Figure("ours", Measured(None, wall=2.0, cpu=1.0, postgres_cpu=0.5, memory=30.0), requests=7)
    alone = Figure("parse", Measured(None, wall=0.5, cpu=0.25))
    figures = [ours, alone, Figure("theirs", ours.measured, peer=True), Figure("aim")]
    assert against.readings([Section("Part", "", figures)]) == {
        "Part: ours": {"wall s": 2.0, "CPU s": 1.5, "requests": 7, "peak MB": 30.0},
        "Part: parse": {"wall s": 0.5, "CPU s": 0.25},
    }


def test_ratio_is_the_median_of_the_pairs_not_of_the_sides():
    # The machine was twice as slow in the second pair, and disturbed in the third.
    (found,) = against.compared([pair(1.0, 1.1), pair(2.0, 2.2), pair(1.0, 9.0)])
    assert (found.base, found.now) == (1.0, 2.2)
    assert found.ratio == pytest.approx(1.1)
    assert not found.worse


@pytest.mark.parametrize(("now", "worse"), [(1.14, False), (1.16, True)])
def test_worse_is_above_the_limit(now, worse):
    (found,) = against.compared([pair(1.0, now)] * 3)
    assert found.worse is worse
    assert str(found).endswith("WORSE") is worse


@pytest.mark.parametrize(
    ("measure", "base", "now", "ratio"),
    [("wall s", 0.01, 0.1, 1), ("CPU s", 0.1, 0.4, 2), ("peak MB", 1, 15, 1), ("requests", 0, 3, 3)],
)
def test_what_is_lost_in_the_noise_counts_as_its_floor(measure, base, now, ratio):
    (found,) = against.compared([pair(base, now, measure)])
    assert found.ratio == pytest.approx(ratio)


def test_what_a_side_lacks_is_told_and_not_compared():
    pairs = [({"a": {"wall s": 1}, "b": {"wall s": 1}}, {"a": {"wall s": 1, "CPU s": 1}, "c": {"wall s": 1}})]
    assert [each.line for each in against.compared(pairs)] == ["a"]
    assert against.left_out(pairs) == ["b", "c"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose base, the tag `base`, takes 1 s, with the fake benchmarks."""
    folder = tmp_path / "project"
    (folder / "benchmarks").mkdir(parents=True)
    monkeypatch.setattr(against, "REPOSITORY", folder)
    write(folder, figure="seconds", version="A", seconds="1.0")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--message", "base")
    git(folder, "tag", "base")
    return folder


def write(folder: Path, figure: str, **files: str) -> None:
    source = FAKE.format(turns=str(folder.parent / "turns"), figure=figure)
    (folder / "benchmarks" / "__main__.py").write_text(source)
    for name, text in files.items():
        (folder / name).write_text(text)


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("seconds", "code"), [("1.1", 0), ("1.2", 1), ("0.5", 0)])
def test_sides_take_turns_and_the_worse_one_fails(project, capsys, seconds, code):
    write(project, figure="seconds", version="B", seconds=seconds)
    assert against.compare("base", 3) == code
    assert (project.parent / "turns").read_text() == "ABABAB"
    assert f"{code} of 1 figures are worse than 1.15 x base" in capsys.readouterr().out
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_base_that_the_present_benchmarks_do_not_fit_is_measured_by_its_own(project):
    write(project, figure="minutes", version="B", minutes="1.3")
    assert against.compare("base", 2) == 1


def test_commit_that_is_none_is_told(project):
    with pytest.raises(BenchError, match="nowhere"):
        against.compare("nowhere", 1)
