"""TLS as the settings ask for it: who is trusted, who is refused, and that a refusal is final."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.endpoints.tls import tls_context
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import SpecError
from tests.adapters.endpoints.calling import endpoint, failure, post, settings
from tests.support.certificates import Authority, Issued
from tests.support.scripted_server import Script, Wire, answer, answers, sends_and_stalls, serve

HOUR = timedelta(hours=1)


@pytest.fixture
def issued(authority: Authority) -> Issued:
    """A good certificate for the loopback address."""
    return authority.issue()


def test_plain_http_needs_no_context() -> None:
    """There is no TLS context for an http URL, not even with TLS files in the settings."""
    assert tls_context(settings("http://host", ca_file="/nowhere")) is None


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
async def test_a_private_authority(authority: Authority, issued: Issued, scheme: str) -> None:
    """A server of a private authority is trusted with its CA file, however the scheme is spelled; one handshake serves
    many calls."""
    async with serve(answers(answer()), tls=issued.server_context()) as server:
        server.scheme = scheme
        async with endpoint(server, ca_file=authority.ca_file) as opened:
            for _ in range(3):
                assert (await post(opened)).status == 200
            assert server.opened == 1
        await server.until_nothing_is_open()


TOLD = {
    "self-signed": "TLS: self-signed certificate",
    "expired": "TLS: certificate has expired",
    "not valid yet": "TLS: certificate is not yet valid",
    "for another host": "TLS: IP address mismatch, certificate is not valid for '127.0.0.1'",
    "for another address": "TLS: IP address mismatch, certificate is not valid for '127.0.0.1'",
    "of an unknown authority": "TLS: unable to get local issuer certificate",
}
REFUSED = {
    "self-signed": lambda ours, _: ours.self_signed(),
    "expired": lambda ours, _: ours.issue(starts=-2 * HOUR, ends=-HOUR),
    "not valid yet": lambda ours, _: ours.issue(starts=HOUR, ends=2 * HOUR),
    "for another host": lambda ours, _: ours.issue("model.example"),
    "for another address": lambda ours, _: ours.issue("127.0.0.2"),
    "of an unknown authority": lambda _, theirs: theirs.issue(),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_certificate_that_is_refused(case: str, authority: Authority, stranger: Authority) -> None:
    """It is a failure to connect that no later call can mend and that says what is wrong; the server got no request."""
    context = REFUSED[case](authority, stranger).server_context()
    async with serve(answers(answer()), tls=context) as server, endpoint(server, ca_file=authority.ca_file) as opened:
        failed = await failure(opened)
        assert (failed.failure, failed.permanent) == (Failure.CONNECT, True)
        assert str(failed) == TOLD[case]
        assert server.arrived == []


async def test_a_private_authority_without_its_file(issued: Issued) -> None:
    """The system's authorities do not vouch for a private one."""
    async with serve(answers(answer()), tls=issued.server_context()) as server, endpoint(server) as opened:
        assert (await failure(opened)).permanent
        assert server.arrived == []


async def test_the_file_replaces_the_system_s_authorities(authority: Authority, stranger: Authority) -> None:
    """With a CA file only its authorities are trusted."""
    context = tls_context(settings("https://host", ca_file=authority.ca_file))
    assert context is not None
    assert [dict(name for part in found["subject"] for name in part) for found in context.get_ca_certs()] == [
        {"commonName": "private CA"}
    ]


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_verification_off(case: str, scheme: str, authority: Authority, stranger: Authority) -> None:
    """Switched off in the settings, any certificate will do."""
    context = REFUSED[case](authority, stranger).server_context()
    async with serve(answers(answer()), tls=context) as server:
        server.scheme = scheme
        async with endpoint(server, verify_tls=False) as opened:
            assert (await post(opened)).status == 200


@contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[str]:
    """The URL of a server that refuses one handshake with an alert, as servers do (asyncio closes without one)."""

    def refuse() -> None:
        connection = context.wrap_socket(listener.accept()[0], server_side=True, do_handshake_on_connect=False)
        with connection:
            with pytest.raises(ssl.SSLError):
                connection.do_handshake()
            while os.read(connection.fileno(), 65536):  # closing with unread bytes would be a reset
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        refused = threads.submit(refuse)
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        refused.result(timeout=5)


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("newest", VERSIONS)
async def test_a_client_certificate(authority: Authority, issued: Issued, newest: ssl.TLSVersion) -> None:
    """A server that asks for a client certificate gets the configured one."""
    ours = authority.issue("client")
    context = issued.server_context(clients_of=authority.ca_file, newest=newest)
    files = {"ca_file": authority.ca_file, "client_cert_file": ours.certificate, "client_key_file": ours.key}
    async with serve(answers(answer()), tls=context) as server, endpoint(server, **files) as opened:
        assert (await post(opened)).status == 200


@pytest.mark.parametrize("newest", VERSIONS)
@pytest.mark.parametrize("whose", ["nobody", "stranger"])
async def test_a_client_that_is_refused(
    authority: Authority, stranger: Authority, issued: Issued, newest: ssl.TLSVersion, whose: str
) -> None:
    """Without the client certificate the server wants, no later call can succeed either; TLS 1.3 says so only after
    the handshake."""
    theirs = stranger.issue("client")
    files = {"client_cert_file": theirs.certificate, "client_key_file": theirs.key} if whose == "stranger" else {}
    context = issued.server_context(clients_of=authority.ca_file, newest=newest)
    with refusing(context) as url:
        async with endpoint(url, ca_file=authority.ca_file, **files) as opened:
            failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, True)
    assert str(failed).startswith("TLS: ")


async def speaks_first(wire: Wire) -> None:
    await wire.send(answer(status="400 Bad Request"))
    await wire.until_closed()


async def closes(wire: Wire) -> None:
    """A server that goes down."""


async def resets(wire: Wire) -> None:
    wire.reset()


@pytest.mark.parametrize(("script", "permanent"), [(speaks_first, True), (closes, False), (resets, False)])
async def test_a_handshake_that_fails(script: Script, permanent: bool) -> None:
    """An answer that is no TLS is permanent; a connection that breaks in the handshake is a server that may be back."""
    async with serve(script) as server:
        server.scheme = "https"
        async with endpoint(server) as opened:
            failed = await failure(opened)
            assert (failed.failure, failed.permanent) == (Failure.CONNECT, permanent)
            assert not permanent or str(failed) == "TLS: the handshake fails (WRONG_VERSION_NUMBER)"


async def test_an_old_protocol_is_refused(authority: Authority, issued: Issued) -> None:
    """Nothing below TLS 1.2 is spoken."""
    context = tls_context(settings("https://host", ca_file=authority.ca_file))
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_the_deadline_holds_over_tls(authority: Authority, issued: Issued) -> None:
    """A server that takes the request and hangs costs the deadline, and its connection is closed."""
    hangs, ca_file = serve(sends_and_stalls(b""), tls=issued.server_context()), authority.ca_file
    async with hangs as server, endpoint(server, ca_file=ca_file) as opened:
        started = asyncio.get_running_loop().time()
        assert (await failure(opened, deadline_seconds=0.3)).failure is Failure.TIMEOUT
        assert asyncio.get_running_loop().time() - started < 0.6
        await server.until_nothing_is_open()


def _bad_files(authority: Authority, folder: Path) -> dict[str, dict[str, str]]:
    one, other = authority.issue(), authority.issue()
    locked = authority.issue_with_passphrase()
    empty, text = folder / "empty.pem", folder / "text.pem"
    empty.write_text("")
    text.write_text("no certificate")
    return {
        "no such CA file": {"ca_file": "/nowhere/ca.pem"},
        "an empty CA file": {"ca_file": str(empty)},
        "a CA file that is none": {"ca_file": str(text)},
        "a folder": {"ca_file": str(folder)},
        "no such certificate": {"client_cert_file": "/nowhere/c.pem", "client_key_file": one.key},
        "a certificate that is none": {"client_cert_file": str(text), "client_key_file": one.key},
        "a certificate without key": {"client_cert_file": one.certificate},
        "the key of another": {"client_cert_file": one.certificate, "client_key_file": other.key},
        "a key with a passphrase": {"client_cert_file": locked.certificate, "client_key_file": locked.key},
    }


@pytest.mark.parametrize(
    "case",
    [
        "no such CA file",
        "an empty CA file",
        "a CA file that is none",
        "a folder",
        "no such certificate",
        "a certificate that is none",
        "a certificate without key",
        "the key of another",
        "a key with a passphrase",
    ],
)
def test_files_that_cannot_be_used(
    case: str, authority: Authority, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are refused when the endpoint is made, with what to check, and nobody is asked for a passphrase."""
    files = _bad_files(authority, tmp_path)[case]
    with pytest.raises(SpecError, match="check ca_file and client_"):
        tls_context(settings("https://host", **files))
    assert capfd.readouterr().err == ""
