"""An account of Flex Rental Solutions to test against: the API of its own web pages, as far as crews need it.

Endpoints, below `/f5/api`, wanting the header `X-Auth-Token` (else 401); `{id}` is an element (a crew call) or a line
on one:

- `GET line-item/{id}/row-data`: an array of rows, each in one of the shapes that were seen; `codeList` names fields
- `GET line-item/{id}/row-data/findRowData`, `line-item/{id}`, `line-item/{id}/children`, `element/{id}/line-items`: the
  same lines, wrapped in many ways, some without resource or type
- `POST line-item/{element}/add-resource/{contact}`: another line, however often it is asked; the new line's id under
  one of five names
- `POST line-item/{element}/row-data`: the business role of a line
- `DELETE line-item/{id}`: 404 when it is gone; `DELETE line-item` for several, if at all
- `GET contact/{id}/key-info`

The vendor describes little of this. Where nobody has seen what it does, the simulator does the following:

- Errors always have a body `{"exceptionMessage": ...}`. Over the quota the status is 429. The quotas are per hour and
  day of the clock; refused requests do not count.
- A header is a row of type `header` without a resource; it can be asked for like an element. Some contacts that are
  added without a parent come to lie under it. A header that is deleted takes what lies under it along.
- Any id is that of a contact. A business role must be one of the account's, and only a contact can have one.
- The address of a line that isn't there answers 404, unless the config says otherwise.
- A refreshed token is let in beside the one that it refreshes.
- The bulk delete is refused unless its parameter has the right name, and deletes all or nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from include.simulators import serving
from include.simulators.flex.account import Account, Counters, Write
from include.simulators.flex.app import create
from include.simulators.flex.changes import Mutation
from include.simulators.flex.config import Config
from include.simulators.flex.control import Control
from include.simulators.flex.faults import LIES, SPOILS, Fault
from include.simulators.flex.store import Line
from include.simulators.serving import Simulator

__all__ = [
    "LIES",
    "SPOILS",
    "Config",
    "Control",
    "Counters",
    "Fault",
    "Line",
    "Mutation",
    "Simulator",
    "Write",
    "running",
]


@contextmanager
def running(config: Config | None = None) -> Iterator[Simulator[Control]]:
    """Serve an account on a free loopback port, in a thread; nothing of it is left afterwards."""
    config = config or Config()
    with serving.in_thread(create(Account(config))) as url:
        yield Simulator(url, config.token, Control(url))
