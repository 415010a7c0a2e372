"""TLS over gRPC as the settings ask for it: who is trusted, who is refused, and that a refusal is final and told."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.endpoints.grpc_credentials import channel_credentials
from airflow_provider_ai.adapters.endpoints.open_inference_grpc import GrpcEndpoint
from airflow_provider_ai.core.verdict import Failure
from airflow_provider_ai.exceptions import SpecError
from tests.adapters.endpoints.grpc_calling import endpoint, failure, grpc_settings, output, post
from tests.adapters.endpoints.grpc_servers import Context, serve_grpc
from tests.adapters.endpoints.test_tls import REFUSED
from tests.adapters.in_transit.servers import old
from tests.support.certificates import Authority, Issued
from tests.support.scripted_server import Server, Wire, serve
from tests.support.tls_peer import tls_peer


def answers_one(_: bytes, __: Context) -> bytes:
    return output(0.5)


@pytest.fixture
def issued(authority: Authority) -> Issued:
    """A good certificate for the loopback address."""
    return authority.issue()


def test_plain_grpc_needs_no_credentials() -> None:
    """There are none for a grpc URL, not even with TLS files in the settings."""
    assert channel_credentials(grpc_settings("grpc://host:1", ca_file="/nowhere")) is None


@pytest.mark.parametrize("scheme", ["grpcs", "GRPCS"])
async def test_a_private_authority(authority: Authority, issued: Issued, scheme: str) -> None:
    """A server of a private authority is trusted with its CA file, however the scheme is spelled; one handshake serves
    many calls."""
    with serve_grpc(answers_one, tls=issued) as server:
        url = server.url.replace("grpcs", scheme)
        async with endpoint(url, ca_file=authority.ca_file) as opened:
            for _ in range(3):
                assert (await post(opened)).status == 200
    assert len(server.peers) == 1


async def test_by_name(authority: Authority) -> None:
    """A certificate for a name is good for a URL with that name."""
    with serve_grpc(answers_one, tls=authority.issue("localhost")) as server:
        async with endpoint(f"grpcs://localhost:{server.port}", ca_file=authority.ca_file) as opened:
            assert (await post(opened)).status == 200


TOLD = {
    "self-signed": "TLS: self signed certificate",
    "expired": "TLS: certificate has expired",
    "not valid yet": "TLS: certificate is not yet valid",
    "for another host": "TLS: Hostname mismatch, certificate is not valid for the endpoint's host",
    "for another address": "TLS: Hostname mismatch, certificate is not valid for the endpoint's host",
    "of an unknown authority": "TLS: unable to get local issuer certificate",
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_certificate_that_is_refused(case: str, authority: Authority, stranger: Authority) -> None:
    """It is a failure to connect that no later call can mend and that says what is wrong; no request is sent."""
    with serve_grpc(answers_one, tls=REFUSED[case](authority, stranger)) as server:
        async with endpoint(server, ca_file=authority.ca_file) as opened:
            failed = await failure(opened)
    assert (failed.failure, failed.permanent, str(failed)) == (Failure.CONNECT, True, TOLD[case])
    assert server.calls == []


async def test_a_private_authority_without_its_file(issued: Issued) -> None:
    """The system's authorities do not vouch for a private one."""
    with serve_grpc(answers_one, tls=issued) as server:
        async with endpoint(server) as opened:
            assert (await failure(opened)).permanent
    assert server.calls == []


async def test_the_system_s_authorities(authority: Authority, issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a CA file those of the system are trusted, as for HTTP: here OpenSSL's variable names them."""
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, authority.ca_file)
    with serve_grpc(answers_one, tls=issued) as server:
        async with endpoint(server) as opened:
            assert (await post(opened)).status == 200


async def test_a_client_certificate(authority: Authority, issued: Issued) -> None:
    """A server that asks for a client certificate gets the configured one."""
    ours = authority.issue("client")
    files = {"ca_file": authority.ca_file, "client_cert_file": ours.certificate, "client_key_file": ours.key}
    with serve_grpc(answers_one, tls=issued, clients_of=authority.ca_file) as server:
        async with endpoint(server, **files) as opened:
            assert (await post(opened)).status == 200


@pytest.fixture
def both_in_one(authority: Authority, tmp_path: Path) -> str:
    """A file with a client's certificate and its key."""
    ours, both = authority.issue("client"), tmp_path / "both.pem"
    both.write_text(Path(ours.certificate).read_text() + Path(ours.key).read_text())
    return str(both)


async def test_a_certificate_with_its_key_in_one_file(authority: Authority, issued: Issued, both_in_one: str) -> None:
    """As OpenSSL takes it."""
    with serve_grpc(answers_one, tls=issued, clients_of=authority.ca_file) as server:
        async with endpoint(server, ca_file=authority.ca_file, client_cert_file=both_in_one) as opened:
            assert (await post(opened)).status == 200


@pytest.mark.parametrize("whose", ["nobody", "stranger"])
async def test_a_client_that_is_refused(authority: Authority, stranger: Authority, issued: Issued, whose: str) -> None:
    """It cannot connect. That it never will is not to be seen: gRPC's server just closes; it is said to be possible."""
    theirs = stranger.issue("client")
    files = {"client_cert_file": theirs.certificate, "client_key_file": theirs.key} if whose == "stranger" else {}
    with serve_grpc(answers_one, tls=issued, clients_of=authority.ca_file) as server:
        async with endpoint(server, ca_file=authority.ca_file, **files) as opened:
            failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, False)
    assert str(failed).endswith("refuses the client certificate)")
    assert server.calls == []


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("whose", ["nobody", "stranger"])
async def test_a_client_that_is_refused_with_an_alert(
    authority: Authority, stranger: Authority, issued: Issued, newest: ssl.TLSVersion, whose: str
) -> None:
    """As a proxy before the model server does it: that is for good, and said."""
    theirs = stranger.issue("client")
    files = {"client_cert_file": theirs.certificate, "client_key_file": theirs.key} if whose == "stranger" else {}
    context = issued.server_context(clients_of=authority.ca_file, newest=newest)
    context.set_alpn_protocols(["h2"])
    with tls_peer(context) as peer:
        async with endpoint(f"grpcs://127.0.0.1:{peer.port}", ca_file=authority.ca_file, **files) as opened:
            failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, True)
    assert str(failed).startswith("TLS: the ")
    assert peer.told == 0


async def test_old_protocols(issued: Issued, authority: Authority) -> None:
    """TLS 1.0 and 1.1 are not spoken."""
    with tls_peer(old(issued)) as peer:
        async with endpoint(f"grpcs://127.0.0.1:{peer.port}", ca_file=authority.ca_file) as opened:
            failed = await failure(opened)
    assert (failed.failure, failed.permanent, peer.told) == (Failure.CONNECT, True, 0)


async def test_a_server_without_tls(authority: Authority) -> None:
    """A plain server at a grpcs URL is told from one that is down."""
    with serve_grpc(answers_one) as server:
        async with endpoint(f"grpcs://127.0.0.1:{server.port}", ca_file=authority.ca_file) as opened:
            failed = await failure(opened)
    assert (failed.permanent, str(failed)) == (True, "TLS: the handshake fails (WRONG_VERSION_NUMBER)")


async def test_a_client_without_tls(issued: Issued) -> None:
    """A grpc URL of a server with TLS is a failure to connect, and nothing is sent in clear."""
    with serve_grpc(answers_one, tls=issued) as server:
        async with endpoint(f"grpc://127.0.0.1:{server.port}") as opened:
            assert (await failure(opened)).failure is Failure.CONNECT
    assert server.calls == []


def at_tls(server: Server) -> str:
    return f"grpcs://127.0.0.1:{server.port}"


async def test_a_handshake_that_never_comes(authority: Authority) -> None:
    """The deadline covers the TLS handshake."""

    async def mute(wire: Wire) -> None:
        await wire.until_closed()

    async with serve(mute) as server, endpoint(at_tls(server), ca_file=authority.ca_file) as opened:
        failed = await failure(opened, deadline_seconds=0.3)
    assert (failed.failure, failed.permanent) == (Failure.TIMEOUT, False)


async def test_a_handshake_that_breaks(authority: Authority) -> None:
    """A server that goes down in the handshake may come back."""

    async def closes(_: Wire) -> None:
        pass

    async with serve(closes) as server, endpoint(at_tls(server), ca_file=authority.ca_file) as opened:
        failed = await failure(opened)
    assert (failed.failure, failed.permanent) == (Failure.CONNECT, False)


@pytest.mark.parametrize("field", ["ca_file", "client_cert_file"])
def test_files_that_cannot_be_used(field: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They are refused when the endpoint is made, with what to check, as for HTTP."""
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for path in (str(text), "/nowhere/file.pem"):
        with pytest.raises(SpecError, match="check ca_file and client_"):
            GrpcEndpoint(grpc_settings("grpcs://host:1", **{field: path}), max_response_bytes=1000)


def test_a_key_with_a_passphrase(authority: Authority) -> None:
    """It is refused at once; gRPC would fail in every call."""
    locked = authority.issue_with_passphrase()
    files = {"client_cert_file": locked.certificate, "client_key_file": locked.key}
    with pytest.raises(SpecError, match="a key must have no passphrase"):
        GrpcEndpoint(grpc_settings("grpcs://host:1", **files), max_response_bytes=1000)
