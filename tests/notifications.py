"""A service on loopback that takes notifications, as a chat or a mail server would."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import Loopback


class Service(Loopback):
    """What it was told, as {"title", "message", "type"}; while `down` it answers 503. Its address has the `token`."""

    token = "s3cret-t0ken"

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.asked = 0
        self.down = False
        super().__init__(self._handler())

    @property
    def connection(self) -> str:
        """The Airflow connection to it."""
        return json.dumps({"conn_type": "apprise", "extra": json.loads(self.extra)})

    @property
    def extra(self) -> str:
        """The extra of that connection."""
        path = f"json://{self.address}/{self.token}"
        return json.dumps({"config": {"path": path}})

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.told]

    def _handler(service) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked += 1
                if not service.down:
                    service.told.append({name: message[name] for name in ("title", "message", "type")})
                self.send_response(503 if service.down else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
