"""`python tests/faulty_program.py` is `trio-gateway` with a handler that fails as it is told.

What a device says as `{"type": "fail", "how": ...}` decides. Its locals hold all that is secret.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

import structlog
import trio

from trio_gateway import cli, run

if TYPE_CHECKING:
    from trio_gateway import Session

log = structlog.get_logger(__name__)


async def faulty(session: Session) -> None:
    link, settings, key = session.link, session._settings, session.link.key  # noqa: F841
    while True:
        message = await session.receive()
        if message["type"] != "fail":
            continue
        log.info("told to fail", session=session, device=session.device, settings=settings)
        if message["how"] == "group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, session)
                nursery.start_soon(fail, session)
        elif message["how"] == "program":
            trio.lowlevel.spawn_system_task(fail, session)
        else:
            await fail(session)


async def fail(session: Session) -> NoReturn:
    key = session.link.key
    try:
        key.index(b"no such byte string")
    except ValueError as error:
        raise RuntimeError(f"failed for {session} {session.link!r} {session.hello}") from error
    raise AssertionError


if __name__ == "__main__":
    # `trio-gateway` looks the function up when it is to run.
    run.main = partial(run.main, handler=faulty)
    cli.main()
