"""A real mosquitto on 127.0.0.1, which a test may stop and start again on the same port."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import components
import trio
from certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["Mosquitto", "open_mosquitto"]

START_TIMEOUT = 10.0  # s; it takes 10 ms
HOST = "127.0.0.1"


@asynccontextmanager
async def open_mosquitto(
    *,
    users: Mapping[str, str] | None = None,
    tls: bool = False,
    certificate: tuple[Path, Path] | None = None,
    client_ca: Path | None = None,
) -> AsyncIterator[Mosquitto]:
    """Start a broker; it is killed on the way out.

    Args:
        users: Name -> password of those who may connect. None: everybody.
        tls: Speak TLS with a certificate for 127.0.0.1, signed by the CA in `broker.ca_file`.
        certificate: Speak TLS with the certificate and key in these files.
        client_ca: Let in only who has a certificate that is signed by this CA.
    """
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as folder:
        async with trio.open_nursery() as nursery:
            ca_file = None
            if tls:
                authority = Authority(Path(folder))
                ca_file, certificate = authority.file, authority.issue(Path(folder))
            broker = Mosquitto(
                Path(folder),
                nursery,
                users=users,
                ca_file=ca_file,
                certificate=certificate,
                client_ca=client_ca,
            )
            try:
                await broker.start()
                yield broker
            finally:
                with trio.CancelScope(shield=True):  # SIGKILL is not refused
                    await broker.stop()


class Mosquitto:
    """The broker. Use `open_mosquitto`.

    Attributes:
        port: The same over all restarts.
        ca_file: The CA to trust, if it made one.
        log: Lines that it wrote, of all its lives.
    """

    def __init__(
        self,
        folder: Path,
        nursery: trio.Nursery,
        *,
        users: Mapping[str, str] | None,
        ca_file: Path | None,
        certificate: tuple[Path, Path] | None,
        client_ca: Path | None,
    ) -> None:
        self.port = _free_port()
        self.log: list[str] = []
        self.ca_file = ca_file
        self._certificate = certificate
        self._client_ca = client_ca
        self._folder = folder
        self._nursery = nursery
        self._waiting = trio.lowlevel.ParkingLot()  # for another line, or the end
        self._process: trio.Process | None = None
        if users is not None:
            self.set_users(users)
        self._write_config(passwords=users is not None)

    @property
    def url(self) -> str:
        """For `MqttSettings.url`, without user and password."""
        return f"mqtt{'s' if self._certificate else ''}://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def url_for(self, user: str, password: str) -> str:
        """Return the URL with credentials as given, percent signs included."""
        return self.url.replace("://", f"://{user}:{password}@")

    def reload(self) -> None:
        """Let it read its files again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def set_users(self, users: Mapping[str, str]) -> None:
        """Write the password file; a running broker reads it again."""
        lines = (f"{name}:{_hashed(password)}\n" for name, password in users.items())
        (self._folder / "passwords").write_text("".join(lines), encoding="utf-8")
        if self._process is not None:
            self.reload()

    async def start(self) -> None:
        """Start, and return when it listens."""
        assert self._process is None
        seen = len(self.log)
        binary = components.find("mosquitto", "mosquitto")
        command = [binary, "-c", str(self._folder / "mosquitto.conf")]
        self._process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
        self._nursery.start_soon(self._read_log, self._process)
        with trio.fail_after(START_TIMEOUT):
            await self.wait_log(" running", since=seen)

    async def stop(self) -> None:
        """Kill it; no change if it is not running.

        SIGTERM would be lost if it came in the first millisecond: mosquitto installs its handlers
        before it sets the flag that they clear.
        """
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def restart(self) -> None:
        """Stop and start it on the same port."""
        await self.stop()
        await self.start()

    async def wait_log(self, text: str, *, since: int = 0) -> str:
        """Return the first line from number `since` on that contains `text`; wait for it."""
        while True:
            for line in self.log[since:]:
                if text in line:
                    return line
            if self._process is None or self._process.returncode is not None:
                raise RuntimeError("mosquitto ended: " + "\n".join(self.log))
            await self._waiting.park()

    async def _read_log(self, process: trio.Process) -> None:
        assert process.stderr is not None
        rest = b""
        async with process.stderr as pipe:
            async for chunk in pipe:
                *lines, rest = (rest + chunk).split(b"\n")
                self.log.extend(line.decode("utf-8", "replace") for line in lines)
                self._waiting.unpark_all()
        await process.wait()
        self._waiting.unpark_all()

    def _write_config(self, *, passwords: bool) -> None:
        lines = [
            f"listener {self.port} {HOST}",
            "log_dest stderr",
            "log_type all",
            "sys_interval 0",
            f"allow_anonymous {'false' if passwords else 'true'}",
        ]
        if os.getuid() == 0:
            lines.append("user root")  # else it becomes a user who cannot read our files
        if passwords:
            lines.append(f"password_file {self._folder / 'passwords'}")
        if self._certificate is not None:
            names = ("certfile", "keyfile")
            lines += [f"{name} {file}" for name, file in zip(names, self._certificate, strict=True)]
        if self._client_ca is not None:
            lines += [f"cafile {self._client_ca}", "require_certificate true"]
        (self._folder / "mosquitto.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _free_port() -> int:
    # mosquitto takes port 0 for a Unix socket, so it cannot be asked to choose. Below 32,768, where
    # Linux' range for outgoing connections begins: else a client that retries while the broker is
    # stopped can be given this very port for its own end, and connects to itself.
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            return port


def _hashed(password: str) -> str:
    """Return a line's second part as mosquitto_passwd makes it: PBKDF2 over SHA-512."""
    salt, rounds = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
