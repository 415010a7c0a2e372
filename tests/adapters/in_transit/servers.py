"""Servers that must not be trusted, one kind after the other."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable
from datetime import timedelta

from tests.support.certificates import Authority, Issued

HOUR = timedelta(hours=1)
Context = ssl.SSLContext | None


def old(issued: Issued) -> ssl.SSLContext:
    """TLS 1.0 and 1.1 alone, with whatever ciphers these need."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def good(ours: Authority) -> ssl.SSLContext:
    """The one that is to be trusted."""
    return ours.issue().server_context()


UNTRUSTED: dict[str, Callable[[Authority, Authority], Context]] = {
    "self-signed": lambda ours, _: ours.self_signed().server_context(),
    "expired": lambda ours, _: ours.issue(starts=-2 * HOUR, ends=-HOUR).server_context(),
    "wrong host": lambda ours, _: ours.issue("model.example").server_context(),
    "rogue authority": lambda _, theirs: theirs.issue().server_context(),
    "old protocol": lambda ours, _: old(ours.issue()),
    "plaintext": lambda *_: None,
}
