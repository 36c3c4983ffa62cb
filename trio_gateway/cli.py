"""The command line: `trio-gateway`, or `python -m trio_gateway`.

What goes wrong is one line on standard error, never a traceback: exit code 2 when the command or a
setting is wrong, 1 when something failed that was set right. Everything heavy is imported inside
the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from trio_gateway.bench.cli import bench
from trio_gateway.cli_flags import DEMO_FLAGS, FLAGS, WORKERS, given_flags, load, with_settings
from trio_gateway.errors import GatewayError, SettingsError
from trio_gateway.groups import sole_errors

if TYPE_CHECKING:
    from trio_gateway.settings import Address, Secret, Settings

__all__ = ["main"]

# What bind() says about an address that is taken, not this machine's, or privileged.
_CANNOT_LISTEN: Final = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}


class Program(click.Group):
    """A group whose commands return their exit code, and whose errors are one line each."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """See click.Command.main, which would print errors as three lines."""
        if not extra.setdefault("standalone_mode", True):
            return super().main(*args, **extra)
        extra["standalone_mode"] = False
        try:
            with sole_errors():
                code = super().main(*args, **extra)
        except click.ClickException as error:
            code = _complain(error.format_message(), error.exit_code)
        except GatewayError as error:
            code = _complain(str(error), 2 if isinstance(error, SettingsError) else 1)
        except (KeyboardInterrupt, click.Abort):
            code = 130  # 128 + SIGINT, as shells say it
        sys.exit(code)


def _complain(text: str, code: int) -> int:
    for line in text.splitlines():
        click.echo(f"trio-gateway: {line}", err=True)
    return code


def _cannot_listen(error: OSError, settings: Settings) -> str | None:
    """Say in one line that an address cannot be had; None if the error is about anything else."""
    # A file has a name, an address has none.
    if not isinstance(error, socket.gaierror) and (
        error.errno not in _CANNOT_LISTEN or error.filename is not None
    ):
        return None
    embedded = settings.mqtt.url is None
    addresses = {
        "--mqtt-listen": settings.mqtt.listen if embedded else None,
        "--mqtt-tls-listen": settings.mqtt.tls_listen if embedded else None,
        "--udp-listen": settings.udp.listen,
        "--http-listen": settings.http_listen,
    }
    flags = ", ".join(f"{flag} {each}" for flag, each in addresses.items() if each is not None)
    return f"cannot listen: {error.strerror} ({flags})"


def _version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415
    from platform import python_version  # noqa: PLC0415

    from trio_gateway.workers.opus import library_path  # noqa: PLC0415

    try:
        release = version("trio-gateway")
    except PackageNotFoundError:
        release = "(not installed)"
    try:
        libopus = library_path()
    except Exception as error:  # noqa: BLE001  opuslib raises bare Exception; this is a report
        libopus = f"not found ({error})"
    click.echo(f"trio-gateway {release}, Python {python_version()}, libopus {libopus}")
    context.exit()


@click.group(
    "trio-gateway",
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_settings(*FLAGS)
@click.option(
    "--ready-file",
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the bound addresses there, as JSON, once everything is up.",
)
@click.option(
    "--record-trace",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Record the load there, 200 bytes a second, for `replay`. An older one is replaced.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the versions and paths of what runs.",
)
@click.pass_context
def main(
    context: click.Context,
    /,
    ready_file: Path | None,
    record_trace: Path | None,
    **given: Any,
) -> int:
    """A voice gateway for MQTT devices that scales its own codec workers.

    Without a command, run the gateway: on this machine only, until --mqtt-listen and --udp-listen
    say otherwise. Ctrl-C drains and leaves; a second Ctrl-C leaves at once.
    """
    if context.invoked_subcommand is not None:
        own = {"ready_file": ready_file, "record_trace": record_trace}
        context.obj = given_flags(context, {**given, **own})
        return 0
    if ready_file is not None and not ready_file.parent.is_dir():
        raise click.UsageError(f"--ready-file {str(ready_file)!r}: no such folder")
    loaded = load(context, given)
    import structlog  # noqa: PLC0415
    import trio  # noqa: PLC0415

    from trio_gateway import logs, run  # noqa: PLC0415

    logs.configure(loaded.settings.log)
    for caution in loaded.cautions:
        structlog.get_logger(__name__).warning("a secret lies open", where=caution)
    try:
        with sole_errors():
            return trio.run(run.main, loaded.settings, ready_file, record_trace)
    except OSError as error:
        if text := _cannot_listen(error, loaded.settings):
            raise GatewayError(text) from error
        raise


@main.command()
@with_settings(*FLAGS)
@click.option("--markdown", is_flag=True, help="Print docs/settings.md instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def config(context: click.Context, /, *, markdown: bool, as_json: bool, **given: Any) -> int:
    """Print what is in force and where each value came from, secrets masked."""
    from trio_gateway import settings_views as views  # noqa: PLC0415

    if markdown:
        flags = [(f"{f.name} {f.metavar}", f.path) for f in FLAGS]
        click.echo(views.as_markdown(flags), nl=False)
        return 0
    loaded = load(context, given)
    _complain("\n".join(loaded.cautions), 0)
    if as_json:
        click.echo(views.as_json(loaded))
        return 0
    for line, changed in views.as_columns(loaded):
        click.echo(click.style(line, bold=changed))
    return 0


@main.command()
@with_settings(*DEMO_FLAGS)
@click.pass_context
def demo(context: click.Context, /, **given: Any) -> int:
    """Run a gateway with simulated devices that talk to it, and check what they hear."""
    settings = load(context, given).settings
    from trio_gateway import demo as demonstration  # noqa: PLC0415

    return demonstration.main(settings)


def _address(_context: click.Context, _parameter: click.Parameter, text: str) -> Address:
    from trio_gateway.settings import Address  # noqa: PLC0415

    try:
        return Address.parse(text)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error


_PROBABILITY: Final = click.FloatRange(0, 1)


@main.command()
@click.option(
    "--mqtt",
    "gateway",
    metavar="HOST:PORT",
    callback=_address,
    required=True,
    help="The gateway's MQTT endpoint.",
)
@click.option("--devices", metavar="N", type=click.IntRange(1), default=10, help="How many; 10.")
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    help="How long they talk, each at least once; 10.",
)
@click.option(
    "--ramp",
    metavar="S",
    type=click.FloatRange(0),
    default=1.0,
    help="Time over which the devices come, the first at once; 1.",
)
@click.option("--together", is_flag=True, help="All talk in chorus, which is the hardest load.")
@click.option(
    "--mode",
    type=click.Choice(["manual", "auto", "realtime"]),
    default="manual",
    help="Who notices the end of speech: the device (default), the gateway, or neither.",
)
@click.option("--loss", metavar="P", type=_PROBABILITY, default=0.0, help="Datagrams lost, 0 to 1.")
@click.option(
    "--burst",
    metavar="N",
    type=click.FloatRange(1),
    help="Mean length of a run of lost datagrams; without it, each is drawn by itself.",
)
@click.option(
    "--duplicate",
    metavar="P",
    type=_PROBABILITY,
    default=0.0,
    help="Datagrams that arrive twice, 0 to 1.",
)
@click.option(
    "--reorder",
    metavar="P",
    type=_PROBABILITY,
    default=0.0,
    help="Datagrams that their successor overtakes, 0 to 1.",
)
@click.option(
    "--jitter-ms",
    metavar="J",
    type=click.FloatRange(0, 10_000),
    default=0.0,
    help="Greatest random delay of a datagram.",
)
@click.option("--seed", metavar="N", type=int, default=0, help="Of all of these draws; 0.")
@click.option(
    "--topics",
    type=click.Choice(["stock", "own"]),
    default="stock",
    help="stock: as the firmware, which never subscribes. own: for a broker without rules.",
)
@click.option(
    "--first-device",
    metavar="N",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Number of the first, for several simulators at one gateway; 0.",
)
@click.option(
    "--signature-key-file",
    "key_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Holds the key that the devices' passwords are made with.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.pass_context
def simulate(
    context: click.Context,
    /,
    *,
    loss: float,
    burst: float | None,
    duplicate: float,
    reorder: float,
    jitter_ms: float,
    seed: int,
    key_file: Path | None,
    as_json: bool,
    **plan: Any,
) -> int:
    """Let N simulated devices talk to any gateway that echoes, and check what they hear.

    The exit code is 1 unless every device heard back what it said.
    """
    given_flags(context, {})
    key = None if key_file is None else _key(key_file)
    import trio  # noqa: PLC0415

    from trio_gateway import simulator  # noqa: PLC0415

    try:
        weather = simulator.Weather(
            loss=loss,
            burst=burst or 0.0,
            duplicate=duplicate,
            reorder=reorder,
            jitter=jitter_ms / 1000,
            seed=seed,
        )
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    report = trio.run(simulator.simulate, simulator.Plan(key=key, weather=weather, **plan))
    if as_json:
        click.echo(report.to_json())
    else:
        from rich.console import Console  # noqa: PLC0415

        Console().print(report.table())
    return 0 if report.passed else 1


@main.command()
@click.argument("trace", metavar="[TRACE]", required=False)
@with_settings(WORKERS)
@click.option(
    "--cores",
    metavar="N",
    type=click.FloatRange(0, min_open=True),
    help="CPU cores there; by default those of the recording or scenario, else this machine's.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw workers and load over time (.png, .svg, .pdf).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--list", "names", is_flag=True, help="Name the scenarios.")
@click.pass_context
def replay(
    context: click.Context,
    /,
    *,
    trace: str | None,
    cores: float | None,
    plot: Path | None,
    as_json: bool,
    names: bool,
    **given: Any,
) -> int:
    """Show what the scaling would make of a load: of TRACE, a file or scenario:NAME.

    A file is what --record-trace has written, or CSV or JSON lines of `time`, `rate` and `service`;
    docs/scaling.md has the format. scenario:all compares all scenarios in a table.
    """
    settings = load(context, given).settings
    from trio_gateway.replay import command  # noqa: PLC0415

    if (trace is None) != names:
        raise click.UsageError("give either TRACE or --list")
    if trace is None:
        lines = command.names()
    else:
        lines = command.run(trace, settings, cores=cores, plot=plot, as_json=as_json)
    for line in lines:
        click.echo(line)
    return 0


main.add_command(bench)


def _key(file: Path) -> Secret:
    from trio_gateway.secret_files import read_secret_file  # noqa: PLC0415

    try:
        return read_secret_file(file)
    except SettingsError as error:
        raise click.UsageError(f"--signature-key-file {str(file)!r}: {error}") from error
