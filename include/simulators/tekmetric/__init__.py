"""An account of Tekmetric's shop application to test against: the API that its web pages use, with invented data.

Endpoints, below `/api`, wanting the header `x-auth-token` (else 401 without a body):

- `shop/{shop}/job-board-group-by`: the boards ACTIVE, POSTED and COMPLETE, only the orders that changed last, as a
  flat list that moves while it is read; what was completed recently is on two boards. ACTIVE comes in columns too, in
  one piece
- `shop/{shop}/repair-order/{id}`, `repair-order/{id}` (404 for some that live), `repair-order/{id}/estimate`,
  `repair-order/{id}/profit/labor`
- `shop/{shop}/employees-lite`, `shop/{shop}/employee/{id}`, `shop/{shop}/customer`, `shop/{shop}/customer/{id}`,
  `shop/{shop}/vehicle`, `shop/{shop}/vehicle/{id}`
- `reporting/profit-details-report`: all posted orders, by `nextKeys`

The vendor describes none of this. Where nobody has seen what it does, the simulator does the following:

- Cents come as whole numbers, floats or texts, at times a hair short of the whole. Round half up.
- `estimate.total` is that of all jobs with tax, the declined ones included; `authorizedTotal` that of the authorized
  ones. A job's `total` is with tax too. The fees of a job and of its order are added, discounts are taken off before
  tax and don't lower it: `total = parts + labor + sublets + fees - discounts + taxes`, of jobs as of orders.
- The order's fees are a share of parts + labor + sublets - the jobs' discounts, up to their cap. Without an authorized
  job there is neither fee nor discount, and the margin is "NaN".
- Labor costs what its technician earned when it was done, and nothing where none is named.
- A status of 7 is told by head and estimate, or both answer 404.
- The estimate's id is that of its order; the profit names no order.
- `nextKeys` are a text, or a list (`next_keys`). How the vendor takes a list back is not known: both ways are taken.
- The board in columns shows all that is in work, or no more than `column_limit`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from include.simulators import serving
from include.simulators.account import Counters
from include.simulators.serving import Simulator
from include.simulators.tekmetric.account import Account
from include.simulators.tekmetric.app import create
from include.simulators.tekmetric.arithmetic import Sums
from include.simulators.tekmetric.changes import Mutation
from include.simulators.tekmetric.config import Config, Shop
from include.simulators.tekmetric.control import Control
from include.simulators.tekmetric.faults import Fault

__all__ = ["Config", "Control", "Counters", "Fault", "Mutation", "Shop", "Simulator", "Sums", "running"]


@contextmanager
def running(config: Config | None = None) -> Iterator[Simulator[Control]]:
    """Serve an account on a free loopback port, in a thread. Leaving the block stops it."""
    config = config or Config()
    with serving.in_thread(create(Account(config))) as url:
        yield Simulator(url, config.token, Control(url))
