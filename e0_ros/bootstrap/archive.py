"""Unpacks packages of the machine's own archive into a folder, without root.

apt itself downloads, with a private state folder and a private source list: the distribution's own entries of this
machine, plus Debian's backports where they are asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

_ROUNDS = 5
_APT = Path("/etc/apt")
_LIBC = ("libc6", "libgcc-s1", "libstdc++6")


class ArchiveError(RuntimeError):
    """Something cannot be had from the archive; the message says why."""


class Archive:
    """This machine's package archive.

    Args:
        work: an empty folder for lists, packages and what they hold.
        say: is told what is going on.
        backports: prefer Debian's backports, on Debian 12 and before.

    Raises:
        ArchiveError: no apt, no package source of this release, or no network.

    """

    def __init__(self, work: Path, say: Callable[[str], None], backports: bool = False) -> None:
        for tool in ("apt-get", "dpkg-deb", "ldd"):
            if shutil.which(tool) is None:
                raise ArchiveError(f"{tool} is not there")
        self._work, self._say, self.root = work, say, work / "root"
        self._done, self._depends = set(_LIBC), set[str]()
        apt, release = _private_apt(work, backports)
        say("reading the package lists of this machine's mirror")
        _run([*apt, "update"], work)
        self._download = [*apt, *release, "download"]

    def fetch(self, packages: Collection[str]) -> None:
        """Unpack packages below `root`.

        Raises:
            ArchiveError: one of them cannot be had.

        """
        folder = Path(tempfile.mkdtemp(dir=self._work))
        self._say(f"downloading {', '.join(sorted(packages))}")
        _run([*self._download, *sorted(packages)], folder)
        self._done |= set(packages)
        for package in sorted(folder.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(self.root)], self._work)
            self._depends |= _names(_run(["dpkg-deb", "-f", str(package), "Depends"], self._work))

    def supply(self, libraries: Iterable[str], folder: Path) -> None:
        """Copy shared libraries of the unpacked packages to `folder`, and whatever they need and this machine lacks.

        Dependencies of the packages are fetched until nothing is missing.

        Raises:
            ArchiveError: something is missing to the end.

        """
        wanted = set(libraries)
        for _ in range(_ROUNDS):
            missing = self._copy(wanted, folder)
            if not missing:
                return
            if self._depends - self._done:
                self.fetch(self._depends - self._done)
        raise ArchiveError(f"{', '.join(sorted(wanted))} still lacks libraries: {', '.join(sorted(missing))}")

    def _copy(self, wanted: set[str], folder: Path) -> set[str]:
        """Copy what `root` has of `wanted` and its needs; names of what it has not."""
        while True:
            there = {name for name in wanted if (folder / name).exists()}
            missing = (wanted - there).union(*(_lacking(folder / name, folder) for name in there))
            found = {name: path for name in missing if (path := next(self.root.rglob(name), None)) is not None}
            for name, path in found.items():
                shutil.copy2(path, folder / name)
            if not found:
                return missing


def sources(entries: str, codename: str, backports: bool) -> str:
    """One-line source entries of a release, from the text of `sources.list` and of deb822 `.sources` files.

    `backports` adds that suite for every entry of the release's main suite.
    """
    lines: dict[tuple[str, str], str] = {}
    for uri, suite, components, options in _entries(entries):
        wanted = [suite] if suite == codename or suite.startswith(f"{codename}-") else []
        if suite == codename and backports:
            wanted.append(f"{codename}-backports")
        for name in wanted:
            lines.setdefault((uri.rstrip("/"), name), f"deb {options}{uri} {name} {components}\n")
    return "".join(lines.values())


def _entries(text: str) -> list[tuple[str, str, str, str]]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(\S.*)$", stanza, re.MULTILINE))
        signed = f"[signed-by={fields['Signed-By']}] " if fields.get("Signed-By", "").startswith("/") else ""
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            for uri in fields.get("URIs", "").split():
                found += [(uri, s, fields.get("Components", ""), signed) for s in fields.get("Suites", "").split()]
    line = re.compile(r"^deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(?:#.*)?$", re.MULTILINE)
    found += [(uri, suite, rest, options or "") for options, uri, suite, rest in line.findall(text)]
    return found


def _private_apt(work: Path, backports: bool) -> tuple[list[str], list[str]]:
    """The apt command with its private root, and the options that choose the release."""
    os_release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    codename = os_release.get("VERSION_CODENAME", "")
    backports = (
        backports and os_release.get("ID") == "debian" and int(os_release.get("VERSION_ID", "99").split(".")[0]) <= 12
    )
    files = [_APT / "sources.list", *sorted(_APT.glob("sources.list.d/*.list"))]
    files += sorted(_APT.glob("sources.list.d/*.sources"))
    listed = sources("\n\n".join(f.read_text() for f in files if f.is_file()), codename, backports)
    if not codename or not listed:
        raise ArchiveError(f"no package source of this release ({codename or 'unknown'}) in {_APT}")
    (work / "state/lists/partial").mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    (work / "sources.list").write_text(listed)
    options = {
        "Dir::State": work / "state",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "none",
        "Acquire::Retries": 2,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *[part for key, value in options.items() for part in ("-o", f"{key}={value}")]]
    return apt, ["-t", f"{codename}-backports"] if backports else []


def _names(field: str) -> set[str]:
    """Package names of a `Depends` field, the first of each alternative."""
    return {re.split(r"[ :(|]", part.strip())[0] for part in field.split(",") if part.strip()}


def _lacking(path: Path, folder: Path) -> set[str]:
    """What a library needs, directly or not, and is neither on this machine nor in `folder`."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "LC_ALL": "C"}
    return set(re.findall(r"^\s*(\S+) => not found", _run(["ldd", str(path)], folder, environment), re.MULTILINE))


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise ArchiveError(f"{command[0]}: {next((line for line in lines if line.startswith('E:')), lines[-1])}")
    return done.stdout
