"""What the metrics of a scan of flex mean, in a sentence each."""

from collections.abc import Mapping

METRICS: Mapping[str, str] = {
    "crew_calls": "Crew calls in Flex that the scan looked at.",
    "lines": "Lines on the crew calls in Flex.",
    "desired": "Technicians that our assignments put on them.",
    "rows": "Our rows that say which line is whose.",
    "matched": "Contacts whose line, row and role are as they should be.",
    "missing_in_flex": "People who belong on a crew call and have no line there in Flex.",
    "missing_row": "Lines in Flex that no row of ours names, or whose technician's row names another line.",
    "role_mismatch": "Lines that have another business role than they should have, or none.",
    "undesired_owned": "Lines that we made and that nobody wants.",
    "unknown_in_flex": "Contacts that we did not add; they are kept.",
    "duplicate_in_flex": "Contacts with several lines; their crew calls are left alone.",
    "unreadable": "Crew calls whose answers can't be relied on.",
    "refused": "Crew calls that can't be written as they are.",
    "uncertain": "Crew calls with a write of which nobody knows whether it happened.",
    "stale_rows": "Rows of ours that name a line which Flex does not have any more.",
}
