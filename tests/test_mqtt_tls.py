"""TLS to an external broker: who is believed, who we are, and certificates that change."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
import trio
from certificates import Authority
from keeping_sink import PATIENCE, KeepingSink, settings_for
from mosquitto import Mosquitto, open_mosquitto

from trio_gateway.errors import BrokerUnavailable
from trio_gateway.mqtt import open_external_broker
from trio_gateway.settings import BrokerUrl, MqttSettings, Secret

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

DAY = dt.timedelta(days=1)
LOST = "no connection to the broker"
CLOSED = "closed before it answered"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def reason_of_refusal(broker: Mosquitto, **settings: Any) -> str:
    """Why there is no connection, as the log has it."""
    with structlog.testing.capture_logs() as logs:
        async with open_external_broker(
            settings_for(broker, **settings), sink=KeepingSink()
        ) as front:
            await wait_for(LOST, logs)
            assert not front.connected
    (first, *_) = [each for each in logs if each["event"] == LOST]
    return str(first["reason"])


async def wait_for(event: str, logs: list[MutableMapping[str, Any]]) -> None:
    while not any(each["event"] == event for each in logs):  # noqa: ASYNC110  a list cannot call
        await trio.sleep(0.001)


@pytest.mark.parametrize(
    ("issue", "trusted", "reason"),
    [
        ({}, "other", "self-signed certificate in certificate chain|unable to get local issuer"),
        ({"begins": -2 * DAY, "ends": -DAY}, "ca", "certificate has expired"),
        ({"begins": DAY / 2}, "ca", "certificate is not yet valid"),
        ({"host": "127.0.0.2"}, "ca", "IP address mismatch"),
        ({"host": "broker.example"}, "ca", "IP address mismatch"),
    ],
)
async def test_a_broker_is_not_believed(
    authority: Authority, tmp_path: Path, issue: dict[str, Any], trusted: str, reason: str
) -> None:
    Authority(tmp_path, "other")
    with trio.fail_after(PATIENCE):
        async with open_mosquitto(certificate=authority.issue(tmp_path, **issue)) as broker:
            ca_file = tmp_path / f"{trusted}.pem"
            why = await reason_of_refusal(broker, broker_ca_file=ca_file)
    assert "CERTIFICATE_VERIFY_FAILED" in why
    assert any(each in why for each in reason.split("|"))


async def test_a_broker_that_asks_who_we_are(authority: Authority, tmp_path: Path) -> None:
    server = authority.issue(tmp_path)
    cert_file, key_file = authority.issue(tmp_path, "gateway", host="gateway.example")
    stranger = Authority(tmp_path, "other").issue(tmp_path, "stranger", host="gateway.example")
    ours = {"broker_ca_file": authority.file}
    with trio.fail_after(PATIENCE):
        async with open_mosquitto(certificate=server, client_ca=authority.file) as broker:
            # TLS 1.3 tells a client after its handshake, so only the broker knows why for certain.
            assert await reason_of_refusal(broker, **ours) == CLOSED
            await broker.wait_log("peer did not return a certificate")
            theirs = ours | {"broker_cert_file": stranger[0], "broker_key_file": stranger[1]}
            assert await reason_of_refusal(broker, **theirs) == CLOSED
            await broker.wait_log("certificate verify failed")
            ours |= {"broker_cert_file": cert_file, "broker_key_file": key_file}
            async with open_external_broker(
                settings_for(broker, **ours), sink=KeepingSink()
            ) as front:
                await front.wait_connected()


async def test_a_broker_that_renews_its_certificate(authority: Authority, tmp_path: Path) -> None:
    """The connection goes on; the next one sees the new certificate."""
    with trio.fail_after(PATIENCE):
        async with open_mosquitto(certificate=authority.issue(tmp_path)) as broker:
            settings = settings_for(broker, broker_ca_file=authority.file)
            async with open_external_broker(settings, sink=KeepingSink()) as front:
                await front.wait_connected()
                authority.issue(tmp_path)
                broker.reload()
                await broker.wait_log("Reloading config")
                assert front.connected
                front.send("device", b"{}")
                await broker.wait_log("Received PUBLISH from trio-gateway")
                await broker.restart()
                await front.wait_connected()
                while front.statistics().connections < 2:  # noqa: ASYNC110  the broker's doing
                    await trio.sleep(0.001)


async def test_another_authority_from_one_connection_to_the_next(
    authority: Authority, tmp_path: Path
) -> None:
    """The files are read at each connection: nobody has to restart the gateway."""
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    later = Authority(tmp_path, "later")
    with trio.fail_after(PATIENCE), structlog.testing.capture_logs() as logs:
        async with open_mosquitto(certificate=authority.issue(tmp_path)) as broker:
            settings = settings_for(broker, broker_ca_file=trusted)
            async with open_external_broker(settings, sink=KeepingSink()) as front:
                await front.wait_connected()
                later.issue(tmp_path)
                trusted.write_bytes(b"nothing that could be used")
                await broker.restart()
                while not any("cannot use" in str(x.get("reason")) for x in logs):  # noqa: ASYNC110
                    await trio.sleep(0.001)
                trusted.write_bytes(later.file.read_bytes())
                await front.wait_connected()


async def test_a_key_that_asks_for_a_password_stops_nobody(
    authority: Authority, tmp_path: Path
) -> None:
    cert_file, key_file = authority.issue(tmp_path, password="opensesame")
    settings = MqttSettings(
        url=BrokerUrl.parse("mqtts://127.0.0.1"),
        broker_cert_file=cert_file,
        broker_key_file=key_file,
    )
    with trio.fail_after(PATIENCE), pytest.raises(BrokerUnavailable, match="is encrypted"):
        async with open_external_broker(settings, sink=KeepingSink()):
            pass


async def test_the_password_may_stand_beside_the_url() -> None:
    with trio.fail_after(PATIENCE):
        async with open_mosquitto(users={"gate": "p@ss:w/rd"}) as broker:
            url = broker.url.replace("://", "://gate@")
            settings = settings_for(broker, url=url, password=Secret("p@ss:w/rd"))
            async with open_external_broker(settings, sink=KeepingSink()) as front:
                await front.wait_connected()
