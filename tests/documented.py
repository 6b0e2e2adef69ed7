"""What the docs give to be copied."""

import re

from stack.settings import REPOSITORY


def snippet(page: str, language: str) -> str:
    """The one block of that language on a page of docs/."""
    [found] = re.findall(
        rf"^```{language}\n(.*?)^```", (REPOSITORY / "docs" / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return found
