"""A person's browser at the running stack."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from docs.screenshots import logged_in
from tests.running_platform import Platform


@pytest.fixture(scope="session")
def browser_page(running_platform: Platform) -> Iterator[Page]:
    """A logged-in admin's browser."""
    # A busy machine takes its time.
    expect.set_options(timeout=30_000)
    with logged_in(running_platform.airflow.url, "admin", running_platform.stack.password("admin")) as page:
        yield page
