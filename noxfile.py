"""`nox` runs lint, types, and the tests on every Python that pyproject.toml names.

`nox -s fuzz` and `nox -s soak` take as long as they are told.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_external_run = True

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)  # from the classifiers
CODE = (
    "trio_gateway",
    "tests",
    "hypothesis_tests",
    "fuzz",
    "soak",
    "examples",
    "benchmarks",
    "noxfile.py",
)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install("ruff>=0.17,<0.18")  # select = ["ALL"]: a new release is a new set of rules
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, tests included."""
    session.install("-e", ".[test]", "mypy>=2.4,<2.5", "nox")
    session.run("mypy")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Everything under tests/, against the installed package."""
    session.install(".[test]")
    session.run("pytest", "tests", *session.posargs)


@nox.session(python=[PYTHONS[0], PYTHONS[-1]])  # the last has workers that are interpreters
def properties(session: nox.Session) -> None:
    """Hypothesis, everything under hypothesis_tests/."""
    session.install(".[test]")
    session.run("pytest", "hypothesis_tests", *session.posargs)


@nox.session(python=PYTHONS[0], default=False)
def fuzz(session: nox.Session) -> None:
    """Atheris: every `_untrusted` function for its share of `nox -s fuzz -- --seconds 600`."""
    session.install(".[test]", "atheris>=3,<4")
    session.run("python", "fuzz", *session.posargs)


@nox.session(python=[PYTHONS[0], PYTHONS[-1]], default=False)
def soak(session: nox.Session) -> None:
    """Devices come and go, nothing may grow: `nox -s soak -- --minutes 30`."""
    session.install(".")
    session.run("python", "soak/run_soak.py", *session.posargs)
