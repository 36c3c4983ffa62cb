"""What a setting may be: small rules that check a value and can say in words what they allow.

A rule is an attrs validator (`rule(instance, attribute, value)`) whose `str()` is the text that
error messages and docs/settings.md show: the check and its description cannot drift apart.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable  # noqa: TC003  attrs.resolve_types needs it
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import field, fields_dict, frozen

from trio_gateway.errors import InvalidSetting
from trio_gateway.settings.values import Address

if TYPE_CHECKING:
    from attrs import Attribute, AttrsInstance

__all__ = [
    "COUNT",
    "DURATION",
    "Choice",
    "Each",
    "Instance",
    "Number",
    "Optional",
    "Rule",
    "Switch",
    "Text",
    "Whole",
    "path_of",
    "require",
    "setting",
    "show",
]

T = TypeVar("T")
_LONGEST = 200  # characters of a value in an error message: a line, not a screenful


def setting(
    default: T,
    rule: Rule,
    *,
    unit: str,
    help: str,  # noqa: A002  the word that click and typed-settings use
    why: str,
    mask: Callable[[Any], str] | None = None,
) -> T:
    """Make an attrs field that carries its documentation.

    Args:
        default: Used when no file, variable or flag says otherwise.
        rule: What is allowed.
        unit: Of the number: "s", "ms", "bytes" ...; "" for what has none.
        help: What the setting does.
        why: Where the default comes from: a specification, a measurement, or "guess".
        mask: Gives a printable form of a value that is or holds a secret.
    """
    metadata = {"rule": rule, "unit": unit, "help": help, "why": why, "mask": mask}
    # mypy reads `x: int = setting(1, ...)` as what it is: a default of type int.
    made: T = field(
        default=default,
        validator=rule,
        metadata=metadata,
        repr=True if mask is None else lambda value: _show(value, mask),
    )
    return made


def path_of(section: type, name: str) -> str:
    """Return a field's dotted path, as in the TOML file: "pool.slots", or "grace" at the top."""
    prefix = getattr(section, "SECTION", "")
    return f"{prefix}.{name}" if prefix else name


def show(attribute: Attribute[Any], value: object) -> str:
    """Return any value for a field, right or wrong, as one line that gives no secret away."""
    text = _show(value, attribute.metadata.get("mask"))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _show(value: object, mask: Callable[[Any], str] | None = None) -> str:
    if value is None:
        return "none"
    if mask is not None:
        return repr(mask(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_show, value))}]"
    text = str(value) if isinstance(value, (Address, Path)) else repr(value)
    return text if text.isprintable() else repr(text)  # a path may hold any byte


def require(section: AttrsInstance, allowed: str, *names: str, holds: bool) -> None:
    """Check a rule between fields of a section.

    Args:
        section: The attrs object that is being built.
        allowed: What to say if it is broken.
        names: The fields that the rule is about.
        holds: Whether it is kept.

    Raises:
        InvalidSetting: It is not.
    """
    if not holds:
        fields = fields_dict(type(section))
        values = {
            path_of(type(section), name): show(fields[name], getattr(section, name))
            for name in names
        }
        raise InvalidSetting(values, allowed)


class Rule(ABC):
    """Base of the rules. A subclass says what it accepts and describes it."""

    @abstractmethod
    def accepts(self, value: object) -> bool:
        """Whether the value is allowed."""

    @abstractmethod
    def __str__(self) -> str: ...

    def __call__(self, instance: object, attribute: Attribute[Any], value: object) -> None:
        """Validate for attrs.

        Raises:
            InvalidSetting: The value is not allowed.
        """
        if not self.accepts(value):
            path = path_of(type(instance), attribute.name)
            raise InvalidSetting({path: show(attribute, value)}, f"must be {self}")


@frozen
class Whole(Rule):
    """An int from `low` to `high`, both included. A bool is not an int here."""

    low: int
    high: int | None = None

    def accepts(self, value: object) -> bool:
        """See Rule."""
        return (
            type(value) is int and self.low <= value and (self.high is None or value <= self.high)
        )

    def __str__(self) -> str:
        if self.high is None:
            return f"a whole number, at least {self.low}"
        return f"a whole number from {self.low} to {self.high}"


@frozen
class Number(Rule):
    """A finite float (or int) from `low` to `high`; `low` itself only if `closed`."""

    low: float
    high: float = math.inf
    closed: bool = True

    def accepts(self, value: object) -> bool:
        """See Rule."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        above = self.low <= value if self.closed else self.low < value
        return above and value <= self.high and value < math.inf  # NaN fails every comparison

    def __str__(self) -> str:
        low = f"{'at least' if self.closed else 'above'} {self.low:g}"
        return f"a number {low}" + (f" and at most {self.high:g}" if self.high < math.inf else "")


class Switch(Rule):
    """True or False, and nothing that only counts as one."""

    def accepts(self, value: object) -> bool:
        """See Rule."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


class Choice(Rule):
    """One of a few values."""

    def __init__(self, *options: object, note: str = "") -> None:
        self.options = options
        self.note = note

    def accepts(self, value: object) -> bool:
        """See Rule."""
        return any(type(value) is type(option) and value == option for option in self.options)

    def __str__(self) -> str:
        *most, last = map(str, self.options)
        words = f"{', '.join(most)} or {last}" if most else last
        return f"{words} ({self.note})" if self.note else words


@frozen
class Text(Rule):
    """A non-empty str without control characters that also passes `check`."""

    words: str
    check: Callable[[str], bool] = bool

    def accepts(self, value: object) -> bool:
        """See Rule."""
        return isinstance(value, str) and value.isprintable() and value != "" and self.check(value)

    def __str__(self) -> str:
        return self.words


@frozen
class Instance(Rule):
    """An object of a class that checks itself (Address, Secret, Path) and that passes `check`."""

    of: type
    words: str
    check: Callable[[Any], bool] = lambda _: True

    def accepts(self, value: object) -> bool:
        """See Rule."""
        return isinstance(value, self.of) and self.check(value)

    def __str__(self) -> str:
        return self.words


@frozen
class Optional(Rule):
    """None, or what another rule accepts."""

    rule: Rule

    def accepts(self, value: object) -> bool:
        """See Rule."""
        return value is None or self.rule.accepts(value)

    def __str__(self) -> str:
        return f"{self.rule}, or none"


@frozen
class Each(Rule):
    """A non-empty tuple in which another rule accepts every item."""

    rule: Rule

    def accepts(self, value: object) -> bool:
        """See Rule."""
        return isinstance(value, tuple) and value != () and all(map(self.rule.accepts, value))

    def __str__(self) -> str:
        return f"a list; each item {self.rule}"


COUNT = Whole(1)
DURATION = Number(0, closed=False)
