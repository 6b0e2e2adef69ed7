"""Into how many slices a scan is split, where its source can be read in slices: the environment's setting.

It shapes the DAG, so it is no Airflow Variable: a DAG file asks no database while it is parsed. A param could not shape
scheduled runs.
"""

import os

SETTING = "SYNC_CONFIDENCE_SCAN_SLICES"
MOST = 16


class WrongSlices(ValueError):
    """The setting is no number of slices. The message says in one line what to do."""


def scan_slices() -> int:
    """Return the number of tasks that read one scan together; 1 if the setting is missing. Raises WrongSlices."""
    given = os.environ.get(SETTING) or "1"
    if not given.isdecimal() or not 1 <= int(given) <= MOST:
        raise WrongSlices(
            f"{SETTING}={given[:200]!r} in the environment is no number of slices: set it to a whole number from 1 to"
            f" {MOST}, everywhere where Airflow runs, then start everything again"
        )
    return int(given)
