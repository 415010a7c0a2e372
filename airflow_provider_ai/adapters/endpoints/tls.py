"""The TLS settings of an endpoint as an ``ssl`` context, and what a failed handshake says."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.exceptions import SpecError


def tls_context(settings: EndpointSettings) -> ssl.SSLContext | None:
    """The context for https or grpcs, None for an endpoint without TLS; SpecError for files that cannot be loaded."""
    if urlsplit(settings.url).scheme not in ("https", "grpcs"):  # in lower case, however the URL spells it
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.client_cert_file:
            # Without a password OpenSSL would ask the terminal for one, and wait.
            context.load_cert_chain(settings.client_cert_file, settings.client_key_file, password="")
    except (OSError, ssl.SSLError) as error:
        raise SpecError(
            f"cannot load the endpoint's TLS files ({type(error).__name__}): "
            "check ca_file and client_* (a key must have no passphrase)"
        ) from None
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_refusal(error: BaseException) -> str | None:
    """What is wrong with TLS that no later try can change, from an error of a client library or what it wraps.

    None for everything else: a connection that just broke in the handshake is of a server that may be back.
    """
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        if type(each).__name__ == "CertificateError":  # of urllib3, which compares names itself
            return "Hostname mismatch, certificate is not valid for the host that was asked for"
        own = type(each).__module__ == "ssl" and isinstance(each, ssl.SSLError)  # aiohttp's are subclasses
        if own and not isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
            return handshake_trouble(each)  # type: ignore[arg-type]
        wrapped = getattr(each, "kwargs", None) or {}  # where botocore keeps it
        waiting += (each.__cause__, each.__context__, getattr(each, "reason", None), wrapped.get("error"), *each.args)
    return None


def handshake_trouble(error: OSError) -> str:
    """What is wrong, in OpenSSL's words: they may name the host that was asked for, and quote nothing the peer sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    reason = getattr(error, "reason", None)  # such as WRONG_VERSION_NUMBER
    return f"the handshake fails ({reason or type(error).__name__})"
