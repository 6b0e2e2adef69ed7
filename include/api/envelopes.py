"""Errors that APIs put into an answer with a status of success."""

import re
from collections.abc import Sequence
from typing import Any

from include.api.errors import RefuseData

CODE = re.compile(r"[A-Z][A-Z_]{2,40}")
# Keys under which APIs put an error into an answer, in place of data or beside them.
ERRORS = ("errors", "error")
# More such keys around rows or a record. A record that is the answer itself may have fields of these names.
ENVELOPES = (*ERRORS, "message", "messages", "exception", "exceptionMessage", "errorMessage", "errorCode", "fault")
# What vendors write under such keys if all is well.
NO_ERROR = re.compile(r"|0+(\.0)?|2\d\d|false|ok|success|none|null")
# Keys and values by which an envelope says that the request failed. Again a record may have such fields.
FAILED = {
    **dict.fromkeys(("success", "ok"), re.compile("false|0")),
    "status": re.compile(r"error|fail|failed|failure|[45]\d\d(\.0)?"),
    # What an answer says that it is, such as "list".
    **dict.fromkeys(
        ("object", "type", "kind", "result"), re.compile(r"(error|fault|exception|failure)(\.\w+)?|failed")
    ),
    # HTTP's status, which some vendors send in an answer with another one.
    **dict.fromkeys(("code", "statusCode", "httpStatus", "httpCode"), re.compile(r"[45]\d\d(\.0)?")),
}


def refuse_envelope(data: Any, around: str = "") -> None:
    """Raise RefuseData if an answer around rows or a record carries an error, or says that the request failed.

    `around`: the key of the rows or the record. A list of messages is no error. A status may be an object itself.
    """
    refuse_errors(data, [key for key in ENVELOPES if key in ERRORS or _plain(key) != _plain(around)])
    _refuse_verdicts(data, around)


def _refuse_verdicts(data: Any, around: str = "") -> None:
    for key, value in data.items() if isinstance(data, dict) else ():
        failed = VERDICTS.get(_plain(key))
        if failed and failed.fullmatch(str(value).lower()):
            raise RefuseData(f"its {key!r} says that it failed, so it is no answer")
        # A message in it may say that all is well.
        if _plain(key) == "status" != _plain(around):
            refuse_errors(value)
            _refuse_verdicts(value)


def refuse_errors(data: Any, keys: Sequence[str] = ERRORS) -> None:
    """Raise RefuseData if an answer carries an error under one of the keys, even beside data."""
    plain = {_plain(key) for key in keys}
    for key, value in data.items() if isinstance(data, dict) else ():
        if value and _plain(key) in plain and not NO_ERROR.fullmatch(str(value).lower()):
            raise RefuseData(f"it carries {key!r}{codes_in_brackets(data)}, so it is no answer")


def _plain(key: str) -> str:
    """Return a key as it is compared: `statusCode`, `status_code` and `StatusCode` are one."""
    return key.replace("_", "").replace("-", "").lower()


VERDICTS = {_plain(key): values for key, values in FAILED.items()}


def codes_in_brackets(data: Any) -> str:
    """Return the vendor's error codes for a message, such as " (NOT_FOUND)"; empty if there are none."""
    codes = sorted(error_codes(data))
    return f" ({', '.join(codes)})" if codes else ""


def error_codes(data: Any) -> set[str]:
    """Return the vendor's codes in an answer with errors: words in capitals, which can hold no one's data."""
    errors = data.get("errors") if isinstance(data, dict) else None
    codes = [error.get("code") for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return {code for code in codes if isinstance(code, str) and CODE.fullmatch(code)}
