"""Deliveries over HTTP: signed so that the reference library takes them, judged by their answer, never redirected."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from airflow_provider_ai.adapters.webhooks import HttpWebhookSender
from airflow_provider_ai.core.job_settings import WebhookSettings
from airflow_provider_ai.core.webhook_decisions import Delivered
from airflow_provider_ai.exceptions import SpecError

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
BODY = '{"id":"job","data":{"output":"für Ärzte"}}'.encode()


class Receiver:
    """Answers with ``status`` and keeps what came."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        self.hold = 0.0
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.received.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(made.hold)
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


async def send(url: str, **settings: Any) -> Delivered:
    async with HttpWebhookSender(WebhookSettings(**{"url": url, "secret": SECRET, **settings})) as sender:
        return await sender.send("job", BODY)


async def test_a_delivery_is_signed_as_standard_webhooks_asks(receiver: Receiver) -> None:
    """The library verifies it; a changed body, id or secret is refused."""
    assert await send(receiver.url + "/") == Delivered(done=True)
    ((path, headers, body),) = receiver.received
    assert path == "/ai/webhooks/jobs/job"
    assert headers["webhook-id"] == "job"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["content-type"] == "application/json"
    assert body == BODY
    Webhook(SECRET).verify(body, headers)
    for changed in ({**headers, "webhook-id": "other"}, {**headers, "webhook-signature": "v1,AAAA"}):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(body, changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)


@pytest.mark.parametrize(
    ("status", "delivered"),
    [
        (200, Delivered(done=True)),
        (409, Delivered(detail="HTTP 409")),
        (401, Delivered(detail="HTTP 401")),
        (410, Delivered(detail="HTTP 410")),
        (429, Delivered(again=True, detail="HTTP 429")),
        (503, Delivered(again=True, detail="HTTP 503")),
    ],
)
async def test_the_answer_says_whether_another_delivery_may_help(
    receiver: Receiver, status: int, delivered: Delivered
) -> None:
    """2xx is delivered; a refusal is for good; a server in trouble is asked again."""
    receiver.status = status
    assert await send(receiver.url) == delivered


async def test_retry_after_is_passed_on(receiver: Receiver) -> None:
    """In seconds."""
    receiver.status, receiver.headers = 503, {"Retry-After": "17"}
    assert (await send(receiver.url)).retry_after_seconds == 17.0


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    """The payload goes where the settings say, and nowhere else."""
    receiver.status, receiver.headers = 307, {"Location": f"{receiver.url}/elsewhere"}
    assert await send(receiver.url) == Delivered(detail="HTTP 307")
    assert len(receiver.received) == 1


async def test_a_receiver_that_is_not_there_or_too_slow_may_take_it_later(receiver: Receiver) -> None:
    """Nothing is raised."""
    receiver.hold = 5.0
    assert (await send(receiver.url, timeout_seconds=0.2)).again
    assert (await send("http://127.0.0.1:1")).again


def test_a_ca_file_that_cannot_be_loaded_is_an_error_at_once(tmp_path: Path) -> None:
    """And not at the first result."""
    file = tmp_path / "ca.pem"
    file.write_text("none")
    settings = WebhookSettings(url="https://example.org", secret=SECRET, ca_file=str(file))
    with pytest.raises(SpecError, match="ca_file"):
        HttpWebhookSender(settings)
