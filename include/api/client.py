"""One API over HTTP: a pooled session that sends requests, keeps to the limits and counts."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping

import requests

from include.api.error_policy import ErrorPolicy
from include.api.errors import ApiError, NotFound, NotSent, TryLater
from include.api.limits import Limiter, NoLimit
from include.api.request import Answer, Request
from include.api.responses import LIMITED, answer_of, error_without_response, fitting
from include.api.retries import Retries
from include.api.transport import open_session, read_body

# A request that is given less time than this fails for that reason alone.
SHORTEST_TIMEOUT_SECONDS = 0.1


class ApiClient:
    """Sends requests to one API; up to `connections` threads may share it. A context manager.

    `name` is the connection that messages point to. `error_policy`: what the API's own statuses mean. `timeout` is
    (connect, read) in seconds. For `attempts`, `backoff` and `budget_seconds` see `Retries`, for `verify` requests.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        limiter: Limiter | None = None,
        error_policy: ErrorPolicy | None = None,
        timeout: tuple[float, float] = (10.0, 60.0),
        attempts: int = 6,
        budget_seconds: float | None = None,
        connections: int = 4,
        backoff: tuple[float, float] = (2.0, 30.0),
        verify: bool | str = True,
    ):
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._limiter = limiter or NoLimit()
        self._error_policy = error_policy or ErrorPolicy()
        self._timeout = timeout
        self._retries = Retries(attempts, backoff, budget_seconds)
        self._lock = threading.Lock()
        self._requests_sent = 0
        self._errors: Counter[str] = Counter()
        self._listeners: list[Callable[[Request, Answer], None]] = []
        self._session = open_session(headers or {}, connections, verify)

    def __enter__(self) -> "ApiClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @property
    def requests_sent(self) -> int:
        """The number of requests sent so far, retries included."""
        return self._requests_sent

    @property
    def errors(self) -> dict[str, int]:
        """The number of failed attempts so far by the name of their error class, retried ones included."""
        with self._lock:
            return dict(self._errors)

    @property
    def requests_failed(self) -> int:
        """The number of requests that failed, retried ones included. NotFound is an answer, and no failure."""
        return sum(count for name, count in self.errors.items() if name != NotFound.__name__)

    def listen(self, heard: Callable[[Request, Answer], None]) -> None:
        """Let `heard` have each answer that fits its request, in the thread that asked."""
        self._listeners.append(heard)

    def get(self, path: str, **params: str | int | list) -> Answer:
        """GET `path`; see `send`."""
        return self.send(Request(path, params))

    def send(self, request: Request, *, cancel: threading.Event | None = None) -> Answer:
        """Send a request, again where that may help, and return the answer.

        Raises FixConfiguration, NotFound or TryLater. The last is RefuseData if the answer doesn't fit the question,
        and NotSent if nothing went out. Setting `cancel` ends a wait between two attempts with CancelledError, so that
        a thread ends soon if nobody wants its result any more.
        """
        self._retries.require_time(f"{self.name}: {request}")
        return self._retries.run(
            lambda: self._attempt(request), idempotent=request.idempotent, cancel=cancel or threading.Event()
        )

    def _attempt(self, request: Request) -> Answer:
        refusal = self._limiter.acquire()
        if refusal and not request.owed:
            raise NotSent(f"{self.name}: {request} was not sent: {refusal}")
        answer = self._exchange(request)
        if isinstance(answer, Answer):
            answer = fitting(self.name, request, answer)
        if isinstance(answer, ApiError):
            self._note(answer)
            # Raised here, outside any `except`: the errors of requests quote the URL with its query, and must
            # not be this one's context.
            raise answer
        for heard in self._listeners:
            heard(request, answer)
        return answer

    def _exchange(self, request: Request) -> Answer | ApiError:
        """Send the request once; return the answer, or the error as a value."""
        longest = max(self._retries.remaining(), SHORTEST_TIMEOUT_SECONDS)
        with self._lock:
            self._requests_sent += 1
        try:
            with self._session.request(
                request.method,
                f"{self._base_url}/{request.path.lstrip('/')}",
                params=request.params,
                json=request.body,
                timeout=tuple(min(seconds, longest) for seconds in self._timeout),
                stream=True,
            ) as response:
                body = read_body(response)
        except (requests.RequestException, UnicodeError) as error:
            return error_without_response(self.name, request, error)
        return answer_of(self.name, request, response, body, self._error_policy)

    def _note(self, error: ApiError) -> None:
        """Count the error, and make all users of the API wait if its server asks for that."""
        with self._lock:
            self._errors[type(error).__name__] += 1
        if (
            isinstance(error, TryLater)
            and error.status in LIMITED | self._error_policy.wait
            and error.retry_after is not None
        ):
            self._limiter.pause(error.retry_after)
