"""The commands `trio-gateway bench pool` and `bench options`. Nothing heavy is imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from trio_gateway.cli_flags import load, with_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_gateway.bench.plan import Kind, Part

__all__ = ["bench"]

# (rounds, seconds). Medians of seven rounds forgive three that something disturbed. The whole takes
# two and a half minutes with both kinds of worker, the quick one 20 s.
_FULL: Final = (7, 0.3)
_QUICK: Final = (3, 0.06)

_PARTS: Final[tuple[Part, ...]] = ("decode", "encode", "burst", "start")
_KINDS: Final[tuple[Kind, ...]] = ("thread", "interpreter")


@click.group()
def bench() -> int:
    """Measure what this machine makes of the codec workers."""
    return 0


def _with_flags(command: Callable[..., int]) -> Callable[..., int]:
    """Add the flags that both commands have."""
    flags = (
        click.option(
            "--workers",
            metavar="N",
            type=click.IntRange(1, 64),
            help="Of each pool; by default as many as cores.",
        ),
        click.option(
            "--kind",
            "kinds",
            multiple=True,
            type=click.Choice(_KINDS),
            help="Of worker; by default all that work here. May be repeated.",
        ),
        click.option(
            "--rounds",
            metavar="N",
            type=click.IntRange(1, 1000),
            help=f"How often everything is measured; {_FULL[0]}.",
        ),
        click.option(
            "--seconds",
            metavar="S",
            type=click.FloatRange(0.01, 10),
            help=f"How long each time; {_FULL[1]}.",
        ),
        click.option("--quick", is_flag=True, help="A first look: few and short rounds."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


@bench.command()
@with_settings()
@click.option(
    "--only",
    "parts",
    multiple=True,
    type=click.Choice(_PARTS),
    help="Part to measure; by default all. May be repeated.",
)
@_with_flags
@click.pass_context
def pool(context: click.Context, /, parts: tuple[Part, ...], **flags: Any) -> int:
    """Compare the worker pool with plain loops around the same libopus calls.

    Decoding and encoding of the same speech, for 1, 8 and 64 streams per worker, with the Trio
    thread idle and half busy; frames that come all at once; and the start of a worker.
    """
    settings = load(context, {"config": flags.pop("config")}).settings
    as_json = flags.pop("as_json")
    common = _common(**flags)
    from trio_gateway.bench import command  # noqa: PLC0415
    from trio_gateway.bench.plan import Plan  # noqa: PLC0415

    command.pool(Plan(parts=parts or _PARTS, **common), settings, as_json=as_json)
    return 0


@bench.command()
@with_settings()
@_with_flags
@click.pass_context
def options(context: click.Context, /, **flags: Any) -> int:
    """Measure the options of the pool on and off: what each is good for, on this machine."""
    settings = load(context, {"config": flags.pop("config")}).settings
    as_json = flags.pop("as_json")
    common = _common(**flags)
    from trio_gateway.bench import command  # noqa: PLC0415
    from trio_gateway.bench.plan import Plan  # noqa: PLC0415

    command.options(Plan(parts=(), **common), settings, as_json=as_json)
    return 0


def _common(
    *,
    workers: int | None,
    kinds: tuple[Kind, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
) -> dict[str, Any]:
    """Fill in what was not said."""
    from trio_gateway.bench.facts import cores  # noqa: PLC0415
    from trio_gateway.workers.interpreter import interpreters_work  # noqa: PLC0415

    if "interpreter" in kinds and not interpreters_work():
        raise click.UsageError("--kind interpreter: needs Python 3.13 or later, with a GIL")
    usual = _QUICK if quick else _FULL
    return {
        "workers": workers or cores(),
        "cores": cores(),
        "kinds": tuple(dict.fromkeys(kinds)) or (_KINDS if interpreters_work() else _KINDS[:1]),
        "rounds": rounds or usual[0],
        "seconds": seconds or usual[1],
    }
