"""The control's HTTP side for what only this simulator can be ordered, carried out on the bucket."""

from include.simulators import control_api
from include.simulators.control import decoded
from include.simulators.control_api import Carry, Path
from include.simulators.storage.bucket import Trigger
from include.simulators.storage.faults import Fault


class ControlApi(control_api.ControlApi):
    """What else can be ordered of it."""

    fault_kind = Fault

    def routes(self) -> list[tuple[str, str, Carry]]:
        return [
            *super().routes(),
            ("POST", "triggers", self.trigger),
            ("GET", "keys", self.keys),
            ("PUT", "keys", self.put),
            ("PUT", "empty", self.put_empty),
            ("DELETE", "keys", self.delete),
        ]

    def trigger(self, path: Path, body: bytes) -> None:
        self._account.order(decoded(body, Trigger))

    def keys(self, path: Path, body: bytes) -> list[str]:
        return self._account.objects.keys()

    def put(self, path: Path, body: bytes) -> None:
        self._account.put(decoded(body, list[str]))

    def put_empty(self, path: Path, body: bytes) -> None:
        self._account.put(decoded(body, list[str]), b"")

    def delete(self, path: Path, body: bytes) -> None:
        self._account.objects.delete(decoded(body, list[str]))
