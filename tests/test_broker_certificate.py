"""The endpoint's certificate: renewed, spoilt, expired, while the gateway runs."""

from __future__ import annotations

import datetime as dt
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
import trio
import trio.testing
from certificates import Authority, client_context
from tls_endpoint import connected, endpoint, eventually, refuse

from trio_gateway.broker.certificate import RETRY, Certificate
from trio_gateway.core.mqtt_packet import PingReq, PingResp
from trio_gateway.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

DAY = dt.timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def said(logs: list[MutableMapping[str, Any]], level: str) -> list[str]:
    return [each["event"] for each in logs if each["log_level"] == level]


async def test_a_renewed_certificate_is_used_and_live_connections_go_on(
    authority: Authority, tmp_path: Path
) -> None:
    context = client_context(authority)
    async with (
        endpoint(authority.issue(tmp_path)) as (broker, _),
        connected(broker, context, "first") as first,
    ):
        authority.issue(tmp_path)
        async with connected(broker, context, "second") as second:
            assert second.shown != first.shown
            assert await first.ask(PingReq()) == PingResp()
            assert await second.ask(PingReq()) == PingResp()
        await eventually(broker, clients=1)


async def test_links_that_lead_to_other_files_are_a_renewal(
    authority: Authority, tmp_path: Path
) -> None:
    """As certbot and Kubernetes do it; the key stands in the same file here."""
    for name in ("a", "b"):
        certificate, key = authority.issue(tmp_path, name)
        (tmp_path / f"{name}.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    link = tmp_path / "current.pem"
    link.symlink_to("a.pem")
    context = client_context(authority)
    async with endpoint((link, None)) as (broker, _):
        async with connected(broker, context) as client:
            before = client.shown
        (tmp_path / "next").symlink_to("b.pem")
        (tmp_path / "next").replace(link)
        async with connected(broker, context) as client:
            assert client.shown != before


def test_between_two_renames_the_old_one_goes_on_in_silence(
    authority: Authority, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    with structlog.testing.capture_logs() as logs:

        async def main() -> None:
            certificate, key = authority.issue(tmp_path)
            current = Certificate(certificate, key)
            old = current.context()
            newer, newer_key = authority.issue(tmp_path, "newer")
            newer.replace(certificate)
            assert current.context() is old
            newer_key.replace(key)
            assert current.context() is not old

        trio.run(main, clock=autojump_clock)
    assert said(logs, "error") == []
    assert said(logs, "info") == ["TLS certificate read again"]


@pytest.mark.parametrize("trouble", ["missing", "garbage", "other key", "encrypted", "empty"])
async def test_files_that_cannot_be_used_are_an_error_once_and_forgiven(
    authority: Authority, tmp_path: Path, autojump_clock: trio.testing.MockClock, trouble: str
) -> None:
    certificate, key = authority.issue(tmp_path)
    current = Certificate(certificate, key)
    old = current.context()
    with structlog.testing.capture_logs() as logs:
        spoil(trouble, authority, certificate, key)
        for _ in range(50):
            assert current.context() is old
            await trio.sleep(RETRY / 4)
        assert said(logs, "error") == [
            "the new TLS certificate cannot be used, the old one goes on"
        ]
        assert "PRIVATE" not in str(logs)
        authority.issue(tmp_path)
        assert current.context() is not old
        spoil(trouble, authority, certificate, key)
        for _ in range(10):
            current.context()
            await trio.sleep(RETRY)
        assert len(said(logs, "error")) == 2, "another time is another story"


def spoil(trouble: str, authority: Authority, certificate: Path, key: Path) -> None:
    if trouble == "missing":
        key.unlink()
    elif trouble == "garbage":
        certificate.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    elif trouble == "other key":
        authority.issue(key.parent, "other")[1].replace(key)
    elif trouble == "encrypted":
        authority.issue(key.parent, password="opensesame")
    else:
        certificate.write_bytes(b"")


async def test_what_passes_by_itself_is_tried_again_although_the_files_look_the_same(
    authority: Authority,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate, key = authority.issue(tmp_path)
    current = Certificate(certificate, key)
    old = current.context()
    authority.issue(tmp_path)
    attempts = 0

    def no_descriptors(_self: ssl.SSLContext, *_files: object, **_password: object) -> None:
        nonlocal attempts
        attempts += 1
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_cert_chain", no_descriptors)
        for _ in range(100):
            assert current.context() is old
        assert attempts == 1
    await trio.sleep(RETRY)
    assert current.context() is not old


@pytest.mark.parametrize("trouble", ["missing", "garbage", "other key", "encrypted", "empty"])
async def test_at_the_start_they_are_an_error_of_the_settings(
    authority: Authority, tmp_path: Path, trouble: str
) -> None:
    files = authority.issue(tmp_path)
    spoil(trouble, authority, *files)
    with pytest.raises(SettingsError, match=r"mqtt\.tls_cert_file = .*server\.crt") as caught:
        async with endpoint(files):
            pass
    assert ("is encrypted" in str(caught.value)) == (trouble == "encrypted"), "nobody is asked"


@pytest.mark.parametrize(
    ("life_days", "left_days", "level", "event"),
    [
        (90, 13, "warning", "the TLS certificate expires soon"),
        (90, 15, None, None),
        (6, 1.1, None, None),
        (6, 0.9, "warning", "the TLS certificate expires soon"),
        (90, -1, "error", "the TLS certificate has expired, devices that look will not come"),
    ],
)
async def test_the_end_of_a_certificate_is_announced_once(
    authority: Authority,
    tmp_path: Path,
    life_days: float,
    left_days: float,
    level: str | None,
    event: str | None,
) -> None:
    ends = left_days * DAY
    files = authority.issue(tmp_path, begins=ends - life_days * DAY, ends=ends)
    with structlog.testing.capture_logs() as logs:
        current = Certificate(*files)
        for _ in range(10):
            current.context()
    assert [(each["log_level"], each["event"]) for each in logs] == (
        [(level, event)] if level else []
    )


async def test_time_passes_over_a_certificate_that_nobody_renews(
    authority: Authority, tmp_path: Path
) -> None:
    now = dt.datetime.now(dt.UTC).timestamp()
    begins, ends = -DAY, 89 * DAY
    files = authority.issue(tmp_path, begins=begins, ends=ends)
    with structlog.testing.capture_logs() as logs:
        current = Certificate(*files, clock=lambda: now)
        for _ in range(120):
            current.context()
            now += DAY.total_seconds()
    assert [each["log_level"] for each in logs] == ["warning", "error"]


async def test_a_client_refuses_an_expired_certificate_and_others_are_served(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue(tmp_path, begins=-2 * DAY, ends=-DAY)
    careless = client_context(authority)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    async with endpoint(files) as (broker, _):
        await refuse(broker, client_context(authority))
        async with connected(broker, careless):
            pass
        await eventually(broker, handshakes_failed={"sslv3_alert_certificate_expired": 1})


async def test_a_certificate_that_only_openssl_can_read_is_served(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    version = der.index(bytes.fromhex("a003020102")) + 4
    certificate.write_text(ssl.DER_cert_to_PEM_cert(der[:version] + b"\x04" + der[version + 1 :]))
    now = 0.0
    with structlog.testing.capture_logs() as logs:
        current = Certificate(certificate, key, clock=lambda: now)
        now = 1e12
        current.context()
    assert said(logs, "warning") == ["cannot tell when the TLS certificate expires"]
    assert said(logs, "error") == []
    with structlog.testing.capture_logs() as logs:
        (tmp_path / "server.crt").touch()
        current.context()
    assert [each["expires"] for each in logs if "expires" in each] == ["unknown"]


async def test_a_key_that_everybody_can_read_is_mentioned(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(tmp_path)
    for mode, count in ((0o600, 0), (0o640, 0), (0o644, 1)):
        key.chmod(mode)
        with structlog.testing.capture_logs() as logs:
            Certificate(certificate, key)
        assert len(said(logs, "warning")) == count
