"""What the README shows is run, or compared with what it quotes."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import trio
from attrs import evolve
from opus_reference import packets
from wire_device import open_device

from trio_gateway import Settings, open_gateway
from trio_gateway.cli import main
from trio_gateway.settings import Address

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ANY_PORT = Address("127.0.0.1", 0)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def any_port() -> Settings:
    settings = Settings()
    return evolve(
        settings,
        mqtt=evolve(settings.mqtt, listen=ANY_PORT),
        udp=evolve(settings.udp, listen=ANY_PORT),
    )


async def test_the_embedding_code_is_a_parrot(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("python")
    assert code.count("trio.run(main)") == 1
    names: dict[str, object] = {}
    exec(compile(code.replace("trio.run(main)", ""), "README.md", "exec"), names)  # noqa: S102  our own
    parrot = names["parrot"]
    with trio.fail_after(10):
        async with open_gateway(any_port()) as gateway, trio.open_nursery() as nursery:
            await nursery.start(gateway.serve, parrot)
            mqtt = gateway.addresses.mqtt
            assert mqtt is not None
            async with open_device((mqtt.host, mqtt.port), "G@@@aa_bb_cc_dd_ee_ff@@@u") as device:
                await device.hello()
                device.listen("start")
                await device.speak(packets(16000, 5))
                device.listen("stop")
                await device.wait_for("tts", state="stop")
                assert len(device.heard) == 5
            nursery.cancel_scope.cancel()


def gateway_commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    found = [line.partition("-m trio_gateway")[2] for line in lines if "-m trio_gateway" in line]
    return [shlex.split(arguments) for arguments in found]


@pytest.mark.parametrize("arguments", gateway_commands(), ids=" ".join)
def test_every_command_line_is_understood(arguments: list[str]) -> None:
    assert isinstance(main, click.Group)
    named = arguments and not arguments[0].startswith("--")
    command = main.commands[arguments[0]] if named else main
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= flags


def test_the_two_commands_install_from_a_clone_and_run() -> None:
    demo, tests = blocks("console")[:2]
    venv = "python3 -m venv .venv && .venv/bin/pip install"
    assert demo == f"{venv} . && .venv/bin/python -m trio_gateway demo\n"
    assert tests == f"{venv} nox && .venv/bin/nox\n"
    assert "/nox" in (ROOT / ".ci/run").read_text(), "the project's own check runs the same"


def test_files_and_extras_that_it_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"\.\[(\w+)\]", README)) <= set(extras)
