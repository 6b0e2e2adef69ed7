"""Errors that APIs put into an answer with a status of success."""

import re
from collections.abc import Sequence
from typing import Any

from include.api.errors import RefuseData

CODE = re.compile(r"[A-Z][A-Z_]{2,40}")
# Keys under which APIs put an error into an answer, in place of data or beside them.
ERRORS = ("errors", "error")
# More such keys around rows or a record. A record that is the answer itself may have fields of these names.
ENVELOPES = (*ERRORS, "message", "messages", "exceptionMessage")
# Keys and values by which an envelope says that the request failed. Again a record may have such fields.
FAILED = {
    "success": re.compile("false|0"),
    "ok": re.compile("false|0"),
    "status": re.compile("error|fail|failed|failure|[45][0-9][0-9]"),
    # HTTP's status, which some vendors send in an answer with another one.
    **dict.fromkeys(("code", "statusCode", "status_code"), re.compile("[45][0-9][0-9]")),
}


def refuse_envelope(data: Any, around: str = "") -> None:
    """Raise RefuseData if an answer around rows or a record carries an error, or says that the request failed.

    `around`: the key of the rows or the record. A list of messages is no error.
    """
    refuse_errors(data, [key for key in ENVELOPES if key in ERRORS or key != around])
    values = {key: str(data.get(key)).lower() for key in FAILED} if isinstance(data, dict) else {}
    failed = [key for key, value in values.items() if FAILED[key].fullmatch(value)]
    if failed:
        raise RefuseData(f"its {failed[0]!r} says that it failed, so it is no answer")


def refuse_errors(data: Any, keys: Sequence[str] = ERRORS) -> None:
    """Raise RefuseData if an answer carries an error under one of the keys, even beside data."""
    found = [key for key in keys if isinstance(data, dict) and data.get(key)]
    if found:
        raise RefuseData(f"it carries {found[0]!r}{codes_in_brackets(data)}, so it is no answer")


def codes_in_brackets(data: Any) -> str:
    """Return the vendor's error codes for a message, such as " (NOT_FOUND)"; empty if there are none."""
    codes = sorted(error_codes(data))
    return f" ({', '.join(codes)})" if codes else ""


def error_codes(data: Any) -> set[str]:
    """Return the vendor's codes in an answer with errors: words in capitals, which can hold no one's data."""
    errors = data.get("errors") if isinstance(data, dict) else None
    codes = [error.get("code") for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return {code for code in codes if isinstance(code, str) and CODE.fullmatch(code)}
