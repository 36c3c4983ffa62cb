"""Fuzz the `_untrusted` functions with atheris, each target in a process of its own.

    python fuzz [--seconds 60] [--targets link mqtt ...]     all, or some, in the time given
    python fuzz --repeat link fuzz/crashes/link-...          one input again

Each process begins with its target's seeds, sees the coverage of the package's pure modules, and
ends with its first finding: the input is kept in fuzz/crashes and the command that repeats it is
printed. The exit code is 1 if there was one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CRASHES: Final = HERE / "crashes"
RSS_LIMIT_MB: Final = 512  # of a process; a target needs about 120, with what it imports
LONGEST: Final = 4096  # bytes of an input
SLOWEST: Final = 10  # seconds for one input
GRACE: Final = 30.0  # seconds a process may take beyond its share, to begin and to end
INSTRUMENTED: Final = [
    *("trio_gateway.core", "trio_gateway.mqtt.routes"),
    *("trio_gateway.simulator.channel", "trio_gateway.simulator.device"),
]
# What does the parsing. Of trio and numpy, only paths of theirs would be found.

sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python fuzz", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="instead of all")
    parser.add_argument("--repeat", nargs=2, metavar=("NAME", "FILE"), help="feed one input")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options, for_libfuzzer = parser.parse_known_args()
    if options.one:
        name, corpus = options.one
        fuzz(name, corpus, for_libfuzzer)
        return 0
    from fuzz_table import TARGETS  # noqa: PLC0415  the fuzzing process imports it instrumented

    if options.repeat:
        name, file = options.repeat
        TARGETS[name].check(TARGETS[name].open(), Path(file).read_bytes())
        return 0
    names = options.targets or list(TARGETS)
    CRASHES.mkdir(exist_ok=True)
    findings = [name for name in names if not run(name, max(1, options.seconds // len(names)))]
    print(f"{len(findings)} of {len(names)} targets with findings: {', '.join(findings) or 'none'}")
    return 1 if findings else 0


def run(name: str, seconds: int) -> bool:
    """Fuzz one target in a process; print what came of it; whether nothing was found."""
    before = set(CRASHES.iterdir())
    with tempfile.TemporaryDirectory() as corpus:
        command = [sys.executable, str(HERE), "--one", name, corpus]
        limits = {
            "max_total_time": seconds,
            "rss_limit_mb": RSS_LIMIT_MB,
            "max_len": LONGEST,
            "timeout": SLOWEST,
            "artifact_prefix": f"{CRASHES}{os.sep}{name}-",
            "print_final_stats": 1,
        }
        flags = [f"-{flag}={value}" for flag, value in limits.items()]
        try:
            done = subprocess.run(  # noqa: S603  ourselves
                command + flags, capture_output=True, check=False, timeout=seconds + GRACE
            )
            output, passed = (
                (done.stdout + done.stderr).decode(errors="replace"),
                not done.returncode,
            )
        except subprocess.TimeoutExpired as error:
            output, passed = (error.stderr or b"").decode(errors="replace"), False
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", output))
    print(
        f"{name:14} {'ok' if passed else 'FOUND':6}"
        f"{stats.get('number_of_executed_units', '?'):>9} inputs,"
        f"{stats.get('average_exec_per_sec', '?'):>7}/s, {stats.get('peak_rss_mb', '?')} MB",
        flush=True,
    )
    if not passed:
        print(output[-3000:])
        for file in sorted(set(CRASHES.iterdir()) - before):
            print(f"again: {sys.executable} fuzz --repeat {name} {os.path.relpath(file)}")
    return passed


def fuzz(name: str, corpus: str, flags: list[str]) -> None:
    """Be the process that fuzzes one target."""
    import atheris  # noqa: PLC0415  only here: nothing else needs it

    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz_table import TARGETS  # noqa: PLC0415  see there
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds()):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)

    def test_one_input(data: bytes) -> None:
        target.check(target.open(), data)

    atheris.Setup([sys.argv[0], *flags, corpus], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
