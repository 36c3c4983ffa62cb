"""Files with secrets."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["is_open_to_all", "refuse_password"]


def is_open_to_all(file: Path) -> bool:
    """Whether every user of this machine may read it; False if that cannot be found out.

    Not so for its group: that is how a key is shared with the one service that needs it (Debian's
    ssl-cert, the fsGroup of a pod).
    """
    try:
        return bool(file.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def refuse_password() -> NoReturn:
    """Be the `password` of `ssl.SSLContext.load_cert_chain`.

    Without one OpenSSL asks on the terminal, and the whole program waits for an answer.

    Raises:
        ValueError: Always.
    """
    raise ValueError("the private key is encrypted; give one that is not")
