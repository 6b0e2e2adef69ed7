"""A service on loopback that takes notifications, as a chat or a mail server would."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Service:
    """What it was told, as {"title", "message", "type"}; while `down` it answers 503. Its address has the `token`."""

    token = "s3cret-t0ken"

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.asked = 0
        self.down = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def connection(self) -> str:
        """The Airflow connection to it."""
        return json.dumps({"conn_type": "apprise", "extra": json.loads(self.extra)})

    @property
    def extra(self) -> str:
        """The extra of that connection."""
        path = f"json://127.0.0.1:{self._http.server_port}/{self.token}"
        return json.dumps({"config": {"path": path}})

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.told]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

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
