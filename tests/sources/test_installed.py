"""The setting that says which sources an installation has."""

import pytest

from include.sources import REGISTRY
from include.sources.installed import (
    SETTING,
    NotInstalled,
    WrongSources,
    installed_sources,
    is_installed,
    left_out_sources,
    require_installed,
)
from include.sources.pools import declared_pools


def test_all_sources_if_it_is_not_set():
    assert installed_sources({}) == REGISTRY
    assert left_out_sources({}) == ()


@pytest.mark.parametrize("setting", ["square,flex", "flex,square", " flex , square ", "flex,\n  square"])
def test_named_ones_in_the_registrys_order(setting):
    assert installed_sources({SETTING: setting}) == ("flex", "square")
    assert left_out_sources({SETTING: setting}) == tuple(name for name in REGISTRY if name not in ("flex", "square"))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("", "names no source"),
        ("  ", "names no source"),
        (",", "names no source"),
        ("flex,,square", "has a comma with no name beside it"),
        ("flex,", "has a comma with no name beside it"),
        ("flex,sqare", "names 'sqare', which is no source"),
        ("Flex", "names 'Flex', which is no source"),
        ("flex square", "names 'flex square', which is no source"),
        ("flex;square", "names 'flex;square', which is no source"),
        ("mirror", "names 'mirror', which is no source"),
        ("flex,square,flex", "names flex twice"),
        ("a\nb", "names 'a\\nb', which is no source"),
    ],
)
def test_a_wrong_one_is_refused_in_one_line_that_says_what_to_do(setting, told):
    with pytest.raises(WrongSources) as refused:
        installed_sources({SETTING: setting})
    line = str(refused.value)
    assert line.startswith(f"{SETTING}=")
    assert told in line
    assert f"name one or more of {', '.join(REGISTRY)}, separated by commas" in line
    assert "\n" not in line


def test_is_read_where_it_is_asked(monkeypatch):
    monkeypatch.setenv(SETTING, "square")
    assert [source for source in REGISTRY if is_installed(source)] == ["square"]
    assert list(declared_pools()) == ["square_writer"]
    require_installed("square")
    with pytest.raises(NotInstalled, match=f"flex is not set up here, .* are kept: add it to {SETTING}"):
        require_installed("flex")
    monkeypatch.setenv(SETTING, "flex,square")
    assert is_installed("flex")
