"""Message definitions from an installation's `share/<package>/msg/*.msg`: what makes a bag readable anywhere."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore


class DefinitionError(ValueError):
    """A message definition cannot be found or parsed; the message says where it was looked for."""


class Definitions:
    """Definitions, type hashes and (de)serialisation of message types, without a ROS install to run.

    Args:
        prefixes: installation prefixes, searched in order; default: `AMENT_PREFIX_PATH`.

    """

    def __init__(self, prefixes: Sequence[Path] | None = None) -> None:
        if prefixes is None:
            prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
        self._prefixes = tuple(prefixes)
        self._texts: dict[str, str] = {}
        self.store: Typestore = get_typestore(Stores.EMPTY)

    def schema(self, name: str) -> str:
        """Definition of `package/msg/Name` and of all it contains, concatenated as rosbag2's `ros2msg` encoding has it.

        Raises:
            DefinitionError: it, or a type that it contains, is not installed.

        """
        order = [name]
        for known in order:
            order += [part for part in _parts(self._load(known)) if part not in order]
        head, *rest = ((_short(known), self._texts[known]) for known in order)
        return head[1] + "".join(f"\n{'=' * 80}\nMSG: {short}\n{text}" for short, text in rest)

    def type_hash(self, name: str) -> str:
        """Type hash of REP 2016 (`RIHS01_...`)."""
        self.schema(name)
        return self.store.hash_rihs01(name)

    def decode(self, data: bytes, name: str) -> Any:
        """Message of CDR bytes; arrays are numpy views of `data`.

        Raises:
            DefinitionError: the type is not installed.
            ValueError: the bytes are no message of this type.

        """
        self.schema(name)
        try:
            return self.store.deserialize_cdr(data, name)
        except (ValueError, IndexError, AssertionError, struct.error) as error:
            raise ValueError(f"{len(data)} bytes are no {name}: {error or type(error).__name__}") from None

    def encode(self, message: Any) -> bytes:
        """CDR bytes of a message."""
        return bytes(self.store.serialize_cdr(message, message.__msgtype__))

    def new(self, name: str, /, **values: Any) -> Any:
        """A message of `package/msg/Name`."""
        self.schema(name)
        return self.store.types[name](**values)

    def _load(self, name: str) -> Any:
        if name not in self._texts:
            text = self._find(name).read_text(encoding="utf-8")
            self.store.register(get_types_from_msg(text, name))
            self._texts[name] = text
        return self.store.fielddefs[name]

    def _find(self, name: str) -> Path:
        package, _, short = name.partition("/msg/")
        for prefix in self._prefixes:
            path = prefix / "share" / package / "msg" / f"{short}.msg"
            if path.is_file():
                return path
        looked = ", ".join(map(str, self._prefixes)) or "nowhere, AMENT_PREFIX_PATH is empty"
        raise DefinitionError(f"no definition of {name}; looked in {looked}: install package {package}")


@lru_cache(maxsize=1)
def installed() -> Definitions:
    """The definitions of the installation in force."""
    return Definitions()


def _parts(definition: Any) -> Iterator[str]:
    _, members = definition
    for _, (kind, detail) in members:
        node, inner = (kind, detail) if kind == Nodetype.NAME else detail[0] if kind != Nodetype.BASE else (kind, "")
        if node == Nodetype.NAME:
            yield inner


def _short(name: str) -> str:
    return name.replace("/msg/", "/")
