"""The certificate of the embedded endpoint, which is renewed while the gateway runs.

Rule 1: what is on disk is looked at when a peer speaks. No task polls and no signal is needed: two
        `stat` take 3 us, where a handshake takes 200 to 400, and reading the files 600.
Rule 2: files that cannot be used change nothing. What was read before goes on, and so does every
        connection that began with it.
"""

from __future__ import annotations

import math
import os
import ssl
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio
from attrs import evolve, frozen
from cryptography import x509

from trio_gateway.errors import SettingsError
from trio_gateway.settings.files import is_open_to_all, refuse_password

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Certificate"]

log = structlog.get_logger(__name__)

RETRY = 1.0
"""Seconds until files that cannot be used are tried again although they look the same (a full
descriptor table passes, too), and until that is worth an error: ACME clients replace certificate
and key one after the other, and for a moment they do not match. A guess."""

DAY = 86_400.0
NOTICE = 14 * DAY
NOTICE_SHARE = 6
"""An expiry is announced 14 days ahead, or when a sixth of a shorter life is left. ACME clients
renew at a third (30 of Let's Encrypt's 90 days, 2 of 6), so half of that time was in vain then."""

Look: TypeAlias = tuple[tuple[int, ...] | None, ...]
"""Tells one state of the files from another; one that is not there is None."""


@frozen
class _Loaded:
    context: ssl.SSLContext
    notice_at: float
    expires: float


class Certificate:
    """The server's certificate and key, read again when their files change.

    Args:
        cert_file: PEM, the certificate first, those that vouch for it after it.
        key_file: PEM; None if it stands in `cert_file`.
        clock: Gives seconds since 1970.

    Raises:
        SettingsError: They cannot be used.
    """

    def __init__(
        self, cert_file: Path, key_file: Path | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._cert_file = cert_file
        self._key_file = key_file or cert_file
        self._clock = clock
        self._look = self._look_at_files()
        try:
            self._loaded = self._load()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"mqtt.tls_cert_file = {self._cert_file}, mqtt.tls_key_file = {self._key_file}: "
                f"{_why(error)}"
            ) from error
        self._retry_at = math.inf
        self._failing_since = math.inf
        self._told = ""
        self._mind_expiry()

    def context(self) -> ssl.SSLContext:
        """Return what a peer that comes now is served with."""
        now = trio.current_time()
        look = self._look_at_files()
        if look != self._look or now >= self._retry_at:
            self._look = look
            self._reload(now)
        self._mind_expiry()
        return self._loaded.context

    def _reload(self, now: float) -> None:
        try:
            self._loaded = self._load()
        except (OSError, ValueError) as error:
            self._retry_at = now + RETRY
            self._failing_since = min(self._failing_since, now)
            why = _why(error)
            if why != self._told and now >= self._failing_since + RETRY:
                self._told = why
                log.error(  # noqa: TRY400  a traceback of OpenSSL's says nothing more
                    "the new TLS certificate cannot be used, the old one goes on",
                    cert_file=str(self._cert_file),
                    key_file=str(self._key_file),
                    why=why,
                )
        else:
            self._retry_at = self._failing_since = math.inf
            self._told = ""
            log.info(
                "TLS certificate read again",
                cert_file=str(self._cert_file),
                expires=_date(self._loaded.expires),
            )

    def _load(self) -> _Loaded:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)  # TLS 1.2 or later
        # One that is begun again and again would cost us more than the client. OpenSSL 3 refuses.
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.load_cert_chain(self._cert_file, self._key_file, password=refuse_password)
        begins, expires = _validity(self._cert_file.read_bytes())
        if is_open_to_all(self._key_file):
            log.warning(
                "everybody on this machine can read the TLS key",
                key_file=str(self._key_file),
                fix="chmod o-r",
            )
        notice = min(NOTICE, (expires - begins) / NOTICE_SHARE)
        return _Loaded(context, expires - notice, expires)

    def _mind_expiry(self) -> None:
        """Say once that the end is near, and once that it has come."""
        loaded, now = self._loaded, self._clock()
        if now < loaded.notice_at:
            return
        say = {"cert_file": str(self._cert_file), "expires": _date(loaded.expires)}
        if now < loaded.expires:
            log.warning("the TLS certificate expires soon", **say)
            self._loaded = evolve(loaded, notice_at=loaded.expires)
        else:
            log.error("the TLS certificate has expired, devices that look will not come", **say)
            self._loaded = evolve(loaded, notice_at=math.inf)

    def _look_at_files(self) -> Look:
        return tuple(map(_look_at, (self._cert_file, self._key_file)))


def _look_at(file: Path) -> tuple[int, ...] | None:
    # The change time moves whenever content, name or rights do, also where mtime is kept; the inode
    # when a link leads to another file, as certbot and Kubernetes do it.
    try:
        found = os.stat(file)  # noqa: PTH116  Path.stat() takes 0.7 us longer
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size


def _validity(pem: bytes) -> tuple[float, float]:
    """Return from when until when a certificate counts; from ever and for ever if nobody can say.

    OpenSSL has taken it by now, and what peers make of it is theirs to say. cryptography is
    stricter, and what it raises has no common base (`InvalidVersion` is no ValueError).
    """
    try:
        leaf = x509.load_pem_x509_certificate(pem)
        return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    except Exception as error:  # noqa: BLE001  see above
        log.warning("cannot tell when the TLS certificate expires", why=str(error))
        return -math.inf, math.inf


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not this certificate's"
        return f"not a certificate and its key in PEM ({error.reason or error})"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _date(seconds: float) -> str:
    if math.isinf(seconds):
        return "unknown"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes")
