"""The TLS context for a broker at mqtts://. Who it is is always verified."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from trio_gateway.errors import BrokerUnavailable
from trio_gateway.settings.files import refuse_password

if TYPE_CHECKING:
    from trio_gateway.settings import MqttSettings

__all__ = ["tls_context"]


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """Read the certificates that `settings` names.

    Raises:
        BrokerUnavailable: A file cannot be read or used; the text names it.
    """
    try:
        context = ssl.create_default_context(cafile=settings.broker_ca_file)
        if settings.broker_cert_file is not None:
            context.load_cert_chain(
                settings.broker_cert_file, settings.broker_key_file, password=refuse_password
            )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = (settings.broker_ca_file, settings.broker_cert_file, settings.broker_key_file)
        shown = ", ".join(str(each) for each in files if each is not None)
        raise BrokerUnavailable(f"cannot use the TLS files {shown}: {error}") from error
    context.sslsocket_class = _TidySocket
    return context


class _TidySocket(ssl.SSLSocket):
    """Closes itself if the handshake fails: paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  as overridden
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise
