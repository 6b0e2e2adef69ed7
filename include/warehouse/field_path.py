"""Paths to the fields of a record, as declarations and the census of fields write them: `price.amount`."""

import json
import re

_SPECIAL = re.compile(r'[.\[\]"]')
# A name in quotes, or one without any; then the dot before the next.
_STEP = re.compile(r'("(?:[^"\\]|\\.)*"|[^".]*)(?:\.|$)')


def join(place: str, key: str) -> str:
    """Return the path of a field: `price.amount`, `lines[].name`. A key with such signs, or an empty one, is quoted."""
    name = json.dumps(key, ensure_ascii=False) if _SPECIAL.search(key) or not key else key
    return f"{place}.{name}" if place else name


def split(path: str) -> list[str]:
    """Return the names that lead to a field, without quotes: of `price."@odata.type"` price and @odata.type."""
    if '"' not in path:
        return path.split(".")
    # The last match is the empty one at the end.
    *steps, _ = _STEP.findall(path)
    return [json.loads(step) if step.startswith('"') else step for step in steps]
