"""A certificate that has expired: nobody gets our token."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from include.api.client import ApiClient
from include.api.errors import FixConfiguration


def certificate(folder: Path, ends: datetime) -> Path:
    """A key with its certificate for `localhost`, which is its own authority, good until then."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{ends:%Y%m%d}.pem"
    pem.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem


@contextmanager
def serving(pem: Path) -> Iterator[tuple[str, list[str]]]:
    """A vendor with that certificate: its URL, and the tokens that it was sent."""
    tokens: list[str] = []

    class Vendor(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"id": 1}')

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = HTTPServer(("127.0.0.1", 0), Vendor)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}", tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.drill("tls-expired")
def test_expired_certificate_ends_it_before_a_token_is_sent(tmp_path, monkeypatch):
    now = datetime.now(UTC)
    for ends, good in ((now + timedelta(days=1), True), (now - timedelta(days=1), False)):
        pem = certificate(tmp_path, ends)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        with serving(pem) as (url, tokens), ApiClient("acme", url, headers={"Authorization": "s3cret"}) as client:
            if good:
                assert client.get("/items").data == {"id": 1}
                assert tokens == ["s3cret"]
            else:
                with pytest.raises(FixConfiguration, match="Check host and certificate of connection 'acme'"):
                    client.get("/items")
                assert (client.requests_sent, tokens) == (1, [])
