"""An https server on loopback that sends photos, well or badly, with a certificate of an authority of its own.

Runs on threads of the test's process, one port for all addresses of loopback, and notes for each connection the address
it came to: where a guard works, there is none.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Serve = Callable[["Talk"], None]


@dataclass(frozen=True)
class Authority:
    """A certificate authority that nobody trusts but those who are handed `trusting`."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def trusting(self) -> ssl.SSLContext:
        """A client's context."""
        context = ssl.create_default_context(cadata=self.certificate.public_bytes(serialization.Encoding.PEM).decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def presenting(self, names: tuple[str, ...], folder: Path) -> ssl.SSLContext:
        """A server's context with a certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        listed = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names]
        certificate = (
            _builder(names[0], self.certificate.subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(listed), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        held = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = folder / f"{names[0]}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + held)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def new_authority() -> Authority:
    """An authority with a fresh key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Livery's tests")])
    certificate = (
        _builder("Livery's tests", name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(key, certificate)


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )


@dataclass(frozen=True)
class Talk:
    """One connection whose request was read.

    Attributes:
        connection: to answer on.
        path: that was asked for.
        headers: of the request, by lower-case name.
        address: of loopback that the client came to.
    """

    connection: socket.socket
    path: str
    headers: dict[str, str]
    address: str

    def send(self, status: str, body: bytes = b"", **headers: str) -> None:
        """A whole answer; `content_length=""` leaves that header out."""
        named = {"Content-Length": str(len(body)), **{key.replace("_", "-").title(): headers[key] for key in headers}}
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items() if value)
        self.connection.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body)


@dataclass
class PhotoServer:
    """Answers each path as `routes` says; what is not there is 404."""

    routes: dict[str, Serve]
    context: ssl.SSLContext | None
    reached: list[str] = field(default_factory=list)
    talks: list[Talk] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("0.0.0.0", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def forget(self) -> None:
        self.reached.clear()
        self.talks.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.reached.append(str(client.getsockname()[0]))
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(30)
        with suppress(OSError, ValueError, IndexError):
            address = str(client.getsockname()[0])
            connection = client if self.context is None else self.context.wrap_socket(client, server_side=True)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    received = connection.recv(4096)
                    if not received:
                        return
                    head += received
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
                talk = Talk(connection, first.split(" ")[1], headers, address)
                self.talks.append(talk)
                serve = self.routes.get(talk.path.partition("?")[0])
                if serve is None:
                    talk.send("404 Not Found")
                else:
                    serve(talk)
                if self.context is not None and isinstance(connection, ssl.SSLSocket):
                    connection.unwrap()
