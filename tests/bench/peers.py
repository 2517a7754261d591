"""Install the peers, each kind into a throw-away directory under dist/, and say in words what could not be.

The only part of the project that asks the network for anything. `PIP_NO_INDEX=1` and `npm_config_offline=true` keep it
from asking; whatever is already installed is used again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

INSTALL_LIMIT = 180  # seconds for one install

# import name: what the package index calls it
LIBRARY_PEERS = {"jwt": "PyJWT", "joserfc": "joserfc"}
SERVER_PEERS = {"jwt": "PyJWT", "uvicorn": "uvicorn", "uvloop": "uvloop", "httptools": "httptools"}
NODE_PEERS = ["fastify", "fast-jwt", "express", "jsonwebtoken", "cookie-parser"]


class Peers(NamedTuple):
    """What is there to compare with."""

    python: str  # the interpreter that can import the Python peers
    versions: dict[str, str]  # package: version, of all that is installed
    node: str | None  # the node program, if it and all NODE_PEERS are there
    node_modules: Path
    skipped: list[str]  # sentences


def run(command: list[str]) -> str | None:
    """Return what `command` prints, or None if it fails, takes too long or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def python_versions(python: str) -> dict[str, str]:
    """Return package: version for each Python peer that `python` can import."""
    names = {**LIBRARY_PEERS, **SERVER_PEERS}
    code = (
        "import importlib, importlib.metadata, json, sys\n"
        "found = {}\n"
        "for name, package in json.loads(sys.argv[1]).items():\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "        found[package] = importlib.metadata.version(package)\n"
        "    except ImportError:\n"
        "        pass\n"
        "print(json.dumps(found))\n"
    )
    found: dict[str, str] = json.loads(run([python, "-c", code, json.dumps(names)]) or "{}")
    return found


def python_peers(directory: Path) -> tuple[str, dict[str, str]]:
    """Return a Python with as many of the peers as could be had, and their versions."""
    python = directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = {*LIBRARY_PEERS.values(), *SERVER_PEERS.values()}
    if not python.exists():
        run([sys.executable, "-m", "venv", str(directory)])
    versions = python_versions(str(python))
    for names in (LIBRARY_PEERS, SERVER_PEERS):  # apart: one that cannot be had shall not cost the others
        missing = sorted(set(names.values()) - set(versions))
        if missing:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            run([*pip, "--retries", "0", "--timeout", "10", *missing])
    if wanted - set(versions):
        versions = python_versions(str(python))
    if versions:
        return str(python), versions
    return sys.executable, python_versions(sys.executable)


def node_versions(modules: Path) -> dict[str, str]:
    """Return package: version for each Node peer in the directory `modules`."""
    manifests = {name: modules / name / "package.json" for name in NODE_PEERS}
    return {name: json.loads(path.read_bytes())["version"] for name, path in manifests.items() if path.exists()}


def node_peers(directory: Path) -> tuple[str | None, dict[str, str]]:
    """Return the node program, None without it or any of its packages, and the versions of those."""
    node, npm, modules = shutil.which("node"), shutil.which("npm"), directory / "node_modules"
    if node and npm and len(node_versions(modules)) < len(NODE_PEERS):
        directory.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--fetch-retries=0"]
        run([npm, "install", "--prefix", str(directory), *options, *NODE_PEERS])
    versions = node_versions(modules)
    if not node or len(versions) < len(NODE_PEERS):
        return None, {}
    return node, {"node": (run([node, "--version"]) or "").strip().lstrip("v"), **versions}


def missing_python(versions: dict[str, str]) -> list[str]:
    """Return a sentence for each Python peer that is not there."""
    sentences = [
        f"{package} is skipped: it is not installed, and pip could not get it (offline?)."
        for package in LIBRARY_PEERS.values() if package not in versions
    ]  # fmt: skip
    missing = sorted(set(SERVER_PEERS.values()) - set(versions))
    if missing:
        sentences.append(f"uvicorn is skipped: pip could not get {', '.join(missing)} (offline?).")
    return sentences


def missing_node(node: str | None) -> list[str]:
    """Return a sentence if the Node peers are not there."""
    if node:
        return []
    return ["fastify and Express are skipped: there is no node or npm, or npm could not get them (offline?)."]


def gather(dist: Path, python_wanted: bool, node_wanted: bool) -> Peers:
    """Return the wanted peers under `dist`, installing what is missing and can be had."""
    peers = Peers(sys.executable, {}, None, dist / "bench-node" / "node_modules", [])
    if python_wanted:
        python, versions = python_peers(dist / "bench-venv")
        peers = peers._replace(python=python, versions=versions, skipped=missing_python(versions))
    if node_wanted:
        node, versions = node_peers(dist / "bench-node")
        skipped = peers.skipped + missing_node(node)
        peers = peers._replace(node=node, versions={**peers.versions, **versions}, skipped=skipped)
    return peers
