"""One running bucket: its objects, habits, open orders and counters, all touched by one thread only."""

from dataclasses import dataclass

from include.simulators.account import Account
from include.simulators.storage.config import Config
from include.simulators.storage.objects import Object, Objects

FILLER = b"picture"  # the content of objects that are put by key alone


@dataclass(frozen=True)
class Trigger:
    """A change to carry out once: after the `page`-th LIST page from the order on, before any later request."""

    page: int
    put: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


class Bucket(Account):
    """The state behind the API and its control."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.objects = Objects()
        self._pages = 0  # LIST pages served
        self._triggers: list[tuple[int, Trigger]] = []  # with the page after which it is due

    def put(self, keys: list[str], content: bytes = FILLER) -> None:
        """Lay a small object under each key."""
        self.objects.put(keys, Object(content))

    def order(self, trigger: Trigger) -> None:
        """Take an order for after a LIST page."""
        self._triggers.append((self._pages + trigger.page, trigger))

    def listed(self) -> None:
        """A LIST page was served: carry out what was ordered for after it."""
        self._pages += 1
        due = [trigger for page, trigger in self._triggers if page <= self._pages]
        self._triggers = [(page, trigger) for page, trigger in self._triggers if page > self._pages]
        for trigger in due:
            self.put(list(trigger.put))
            self.objects.delete(trigger.delete)

    def clear_rules(self) -> None:
        super().clear_rules()
        self._triggers.clear()
