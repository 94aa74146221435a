"""Unpacks Mesa's lavapipe from the machine's own package mirror into a folder, without root.

apt itself downloads, with a private state folder and a private source list: the distribution's own entries of this
machine, plus Debian's backports, because Debian 12's Mesa 22.3 is too old.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

DRIVER = "libvulkan_lvp.so"
_PACKAGE = "mesa-vulkan-drivers"
_ROUNDS = 5
_APT = Path("/etc/apt")
_SAPIEN = ("libX11.so.6",)
"""What SAPIEN itself takes from the system and a bare machine lacks; the driver's packages bring it along."""
_LIBC = ("libc6", "libgcc-s1", "libstdc++6")


class FetchError(RuntimeError):
    """The driver cannot be fetched; the message says why."""


def fetch(target: Path, say: Callable[[str], None]) -> None:
    """Make `target` with `lib/libvulkan_lvp.so`, the libraries that this machine lacks, and `lvp_icd.json`.

    `target` appears whole or not at all.

    Raises:
        FetchError: no apt, no network, or the packages cannot be had.

    """
    for tool in ("apt-get", "dpkg-deb", "ldd"):
        if shutil.which(tool) is None:
            raise FetchError(f"{tool} is not there")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vulkan-", dir=target.parent) as name:
        work = Path(name)
        apt, release = _private_apt(work)
        say("reading the package lists of this machine's mirror")
        _run([*apt, "update"], work)
        built = work / "vulkan"
        _unpack(work, built, [*apt, *release, "download"], say)
        manifest = {"file_format_version": "1.0.0", "ICD": {"api_version": "1.3.0", "library_path": f"./lib/{DRIVER}"}}
        (built / "lvp_icd.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)


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


def _private_apt(work: Path) -> tuple[list[str], list[str]]:
    """The apt command with its private root, and the options that choose the release."""
    os_release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    codename = os_release.get("VERSION_CODENAME", "")
    backports = os_release.get("ID") == "debian" and int(os_release.get("VERSION_ID", "99").split(".")[0]) <= 12
    files = [_APT / "sources.list", *sorted(_APT.glob("sources.list.d/*.list"))]
    files += sorted(_APT.glob("sources.list.d/*.sources"))
    listed = sources("\n\n".join(f.read_text() for f in files if f.is_file()), codename, backports)
    if not codename or not listed:
        raise FetchError(f"no package source of this release ({codename or 'unknown'}) in {_APT}")
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


def _unpack(work: Path, built: Path, download: list[str], say: Callable[[str], None]) -> None:
    """Download the driver's package, then its dependencies until no library is missing."""
    root, library = work / "root", built / "lib"
    library.mkdir(parents=True)
    wanted, done = {_PACKAGE}, set(_LIBC)
    for _ in range(_ROUNDS):
        folder = Path(tempfile.mkdtemp(dir=work))
        say(f"downloading {', '.join(sorted(wanted))}")
        _run([*download, *sorted(wanted)], folder)
        done |= wanted
        wanted = set()
        for package in sorted(folder.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(root)], work)
            wanted |= _depends(_run(["dpkg-deb", "-f", str(package), "Depends"], work)) - done
        if not (library / DRIVER).exists():
            shutil.copy2(next(root.rglob(DRIVER)), library / DRIVER)
        if not _missing(root, library):
            return
    raise FetchError(f"{DRIVER} still lacks libraries: {', '.join(_missing(root, library))}")


def _depends(field: str) -> set[str]:
    return {re.split(r"[ :(|]", part.strip())[0] for part in field.split(",") if part.strip()}


def _missing(root: Path, library: Path) -> list[str]:
    """Copy what ldd does not find from `root` to `library`; names of what is not there either."""
    while True:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "LC_ALL": "C"}
        output = _run(["ldd", str(library / DRIVER)], library, environment)
        names = re.findall(r"^\s*(\S+) => not found", output, re.MULTILINE)
        names += [name for name in _SAPIEN if not (library / name).exists() and not _loadable(name)]
        found = {name: next(root.rglob(name), None) for name in names}
        for name, path in found.items():
            if path is not None:
                shutil.copy2(path, library / name)
        if not names or not any(found.values()):
            return names


def _loadable(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise FetchError(f"{command[0]}: {next((line for line in lines if line.startswith('E:')), lines[-1])}")
    return done.stdout
