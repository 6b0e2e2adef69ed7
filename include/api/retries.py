"""How often a request is sent again, how long to wait before that, and when to give up."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import NoReturn

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from include.api.errors import NotSent, RefuseData, TryLater
from include.api.request import Answer

log = logging.getLogger(__name__)

# An answer that doesn't fit the question is asked for once more: it may have been a bad moment.
ATTEMPTS_AT_DATA = 2


class Retries:
    """The retries and the time budget of one client, which any number of threads may share.

    Only TryLater is retried, up to `attempts` times in all. The waits are random and grow within `backoff` (initial,
    maximum) seconds; a server's `Retry-After` replaces them. `budget_seconds` counts from the first request on, None
    is no limit: no wait goes past the budget, and after it nothing is sent.
    """

    def __init__(self, attempts: int, backoff: tuple[float, float], budget_seconds: float | None):
        self._attempts = attempts
        self._budget = math.inf if budget_seconds is None else budget_seconds
        self._deadline: float | None = None
        initial, maximum = backoff
        self._backoff = wait_random_exponential(multiplier=2 * initial, min=initial, max=maximum)
        self._jitter = min(initial, 1.0)
        self._lock = threading.Lock()

    def remaining(self) -> float:
        """Return the seconds of the budget that are left; the first call starts the clock."""
        with self._lock:
            now = time.monotonic()
            if self._deadline is None:
                self._deadline = now + self._budget
            return self._deadline - now

    def require_time(self, where: str) -> None:
        """Raise NotSent if the budget is spent. The message begins with `where`."""
        if self.remaining() <= 0:
            raise NotSent(
                f"{where} was not sent: the time budget of {self._budget:g} s is spent. "
                "Run the task again later, or raise the budget."
            )

    def run(self, attempt: Callable[[], Answer], *, idempotent: bool, cancel: threading.Event) -> Answer:
        """Call `attempt` until it returns, or until another call is of no use; return its answer.

        Raises the attempt's error: TryLater and RefuseData with the reason for giving up in the message, any other as
        it is. An attempt that is not `idempotent` is made once. Setting `cancel` ends a wait with CancelledError.
        """

        def sleep(seconds: float) -> None:
            if cancel.wait(seconds):
                raise CancelledError

        retrying = Retrying(
            # A request that was not sent had a reason that outlasts any wait here.
            retry=retry_if_exception(lambda error: isinstance(error, TryLater) and not isinstance(error, NotSent)),
            wait=self._wait,
            stop=lambda state: self._reason_to_stop(state, idempotent) is not None,
            sleep=sleep,
            before_sleep=self._log_retry,
            retry_error_callback=lambda state: self._give_up(state, idempotent),
        )
        return retrying(attempt)

    def _wait(self, state: RetryCallState) -> float:
        retry_after = state.outcome.exception().retry_after
        if retry_after is None:
            return self._backoff(state)
        # Never earlier than the server asks, and not for all threads in the same instant.
        return retry_after + random.uniform(0, self._jitter)

    def _reason_to_stop(self, state: RetryCallState, idempotent: bool) -> str | None:
        """Return why there is no other attempt, as the end of a message; None if there is one."""
        if not idempotent:
            return (
                "; it is not sent again, since it may have taken effect. Read back what the API holds before "
                "anything else is sent."
            )
        if state.upcoming_sleep > self.remaining():
            return (
                f"; stopped after attempt {state.attempt_number}, the next one would come after the time "
                f"budget of {self._budget:g} s. Run the task again later, or raise the budget."
            )
        if isinstance(state.outcome.exception(), RefuseData) and state.attempt_number >= ATTEMPTS_AT_DATA:
            return ". Run the task again; if it stays so, see whether the API has changed."
        if state.attempt_number >= self._attempts:
            return f"; stopped after {state.attempt_number} attempts. Run the task again later."
        return None

    def _give_up(self, state: RetryCallState, idempotent: bool) -> NoReturn:
        error = state.outcome.exception()
        message = f"{str(error).rstrip('.')}{self._reason_to_stop(state, idempotent)}"
        kind = RefuseData if isinstance(error, RefuseData) else TryLater
        raise kind(message, status=error.status, retry_after=error.retry_after)

    def _log_retry(self, state: RetryCallState) -> None:
        log.warning(
            "%s; attempt %d of %d, the next one in %.1f s",
            state.outcome.exception(),
            state.attempt_number,
            self._attempts,
            state.upcoming_sleep,
        )
