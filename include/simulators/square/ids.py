"""The vendor's ids: opaque texts. Here each has the number of its row inside."""

_PREFIX = {
    "locations": "LOC",
    "categories": "CAT",
    "taxes": "TAX",
    "discounts": "DSC",
    "units": "UNT",
    "items": "ITM",
    "variations": "VAR",
    "vendor_infos": "VIN",
    "vendors": "VEN",
    "orders": "ORD",
    "payments": "PAY",
    "refunds": "REF",
    "customers": "CUS",
}
_MASK = (1 << 64) - 1


def mix(number: int) -> int:
    """A 64 bit hash that spreads neighbouring numbers."""
    number = (number ^ (number >> 31)) * 0x7FB5D329728EA185 & _MASK
    number = (number ^ (number >> 27)) * 0x81DADEF4BC2DD44D & _MASK
    return number ^ (number >> 33)


def id_of(kind: str, number: int) -> str:
    """The id of the row with a number; ids don't sort as the numbers do."""
    return f"{_PREFIX[kind]}{mix(number + 1) & 0xFFFF:04X}{number:07}"


def number_of(kind: str, text: str) -> int | None:
    """The number in an id; None if the text is no id of that kind."""
    digits = text[7:]
    if not digits.isdecimal() or len(digits) > 20 or id_of(kind, int(digits)) != text:
        return None
    return int(digits)
