"""Secrets of the configuration: read from files, and those that lie open.

A secret need not stand in a file that is under version control, or in a process listing: wherever
`signature_key` may be set, `signature_key_file` may name a file that holds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from typed_settings.types import LoadedValue, LoaderMeta

from trio_gateway.errors import SettingsError
from trio_gateway.settings import Secret, settings_by_path
from trio_gateway.settings.files import is_open_to_all
from trio_gateway.settings.values import MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "SECRET_FILES",
    "FromFile",
    "FromFlag",
    "Layer",
    "cautions",
    "read_secret_file",
    "with_secrets_read",
]

SECRET_FILES: Final = {
    f"{path}_file": path
    for path, attribute in settings_by_path().items()
    if Secret in get_args(attribute.type)
}
"""What names a file -> the setting that is in it. Accepted wherever the setting is."""

Layer = dict[str, LoadedValue]
"""Dotted path -> a raw value with its source; typed-settings' MergedSettings has this shape."""


class FromFlag(LoaderMeta):
    """On the command line, which `ps` shows."""


class FromFile(LoaderMeta):
    """In a file."""

    def __init__(self, name: str, *, file: Path, base_dir: Path | None = None) -> None:
        super().__init__(name, base_dir=base_dir)
        self.file = file


def read_secret_file(path: Path) -> Secret:
    """Return the secret that a file holds; white space around it is not part of it.

    Raises:
        SettingsError: There is none; the text says why, without the path.
    """
    try:
        return Secret(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise SettingsError(error.strerror or str(error)) from error
    except ValueError:  # bad UTF-8; a NUL in the path
        # Not "from": the error of the decoder holds what was in the file.
        raise SettingsError("must be the path of a UTF-8 text file") from None


def with_secrets_read(layer: Layer, problems: list[str]) -> Layer:
    """Replace `signature_key_file` and the like in a layer by what the files hold."""
    read = {path: loaded for path, loaded in layer.items() if path not in SECRET_FILES}
    for path in sorted(layer.keys() & SECRET_FILES.keys()):
        named, meta = layer[path]
        where = f"{path} = {_shown(named, meta)} ({meta.name})"
        if SECRET_FILES[path] in layer:
            problems.append(f"{where}: give either the secret or its file, not both")
        elif not isinstance(named, str):
            problems.append(f"{where}: must be the path of a UTF-8 text file")
        else:
            file = meta.base_dir / named
            try:
                secret = read_secret_file(file)
            except SettingsError as error:
                problems.append(f"{where}: {error}")
            else:
                source = FromFile(f"file {named!r}, {meta.name}", file=file)
                read[SECRET_FILES[path]] = LoadedValue(secret, source)
    return read


def _shown(named: object, meta: LoaderMeta) -> str:
    """Return a file name as it may be printed: it may be the secret itself, by mistake.

    So it has to lead somewhere: to a file, or to one that could be in a folder that there is. A "/"
    alone says nothing, for base64 has it, too.
    """
    if isinstance(named, str):
        file = meta.base_dir / named
        folder = file.parent
        is_telling = folder not in {meta.base_dir, Path(file.anchor)} and _exists(folder)
        if is_telling or _exists(file):
            return repr(named)
    return repr(MASK)


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL in it
        return False


def cautions(merged: Layer) -> Iterator[str]:
    """Say which secrets in force others on this machine can read; a line for each."""
    for path, (value, meta) in merged.items():
        mask = settings_by_path()[path].metadata["mask"]
        if mask is None or mask(value) == value:
            continue  # nothing to hide, as in a URL without a password
        if isinstance(meta, FromFlag):
            yield f"{path} ({meta.name}): everybody on this machine can see it among the processes"
        elif isinstance(meta, FromFile) and is_open_to_all(meta.file):
            yield f"{path} ({meta.name}): everybody on this machine can read the file: chmod o-r"
