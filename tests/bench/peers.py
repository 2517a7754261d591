"""Install the peers, each kind into a throw-away directory under dist/, and say in words what could not be.

The only part of the project that asks the network for anything. `PIP_NO_INDEX=1`, `npm_config_offline=true` and
`GOPROXY=off` keep it from asking; whatever is already installed is used again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

INSTALL_LIMIT = 180  # seconds for one install
COMPILE_LIMIT = 600  # where npm has no binary of better-sqlite3, it compiles SQLite

# import name: what the package index calls it
LIBRARY_PEERS = {"jwt": "PyJWT", "joserfc": "joserfc"}
SERVER_PEERS = {"jwt": "PyJWT", "uvicorn": "uvicorn", "uvloop": "uvloop", "httptools": "httptools"}
NODE_PEERS = ["fastify", "fast-jwt", "express", "jsonwebtoken", "cookie-parser"]
NODE_SQLITE, NODE_SQLITE_VERSION = "better-sqlite3", "12"

GO_SOURCE = Path(__file__).with_name("peer_go.go")
GO_JWT, GO_JWT_VERSION = "github.com/golang-jwt/jwt/v4", "v4.4.3"
GO_JWT_OF_DEBIAN = Path("/usr/share/gocode/src/github.com/golang-jwt/jwt")  # golang-github-golang-jwt-jwt-dev
GO_MOD = f"module peer\n\ngo 1.16\n\nrequire {GO_JWT} {GO_JWT_VERSION}\n"


class Peers(NamedTuple):
    """What is there to compare with."""

    python: str  # the interpreter that can import the Python peers
    versions: dict[str, str]  # package: version, of all that is installed
    node: str | None  # the node program, if it and all NODE_PEERS are there
    node_modules: list[Path]  # where they are, and NODE_SQLITE
    go: Path | None  # the program made of GO_SOURCE
    lacks: dict[str, str]  # peer: why it is not there, a sentence


def run(
    command: list[str], limit: float = INSTALL_LIMIT, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str | None:
    """Return what `command` prints, or None if it fails, takes longer than `limit` seconds or is not there."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=True, cwd=cwd,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
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


def node_versions(modules: Path, names: list[str]) -> dict[str, str]:
    """Return package: version for each of `names` in the directory `modules`."""
    manifests = {name: modules / name / "package.json" for name in names}
    return {name: json.loads(path.read_bytes())["version"] for name, path in manifests.items() if path.exists()}


def npm_install(directory: Path, packages: list[str], *options: str) -> None:
    """Try to install `packages` into `directory`, and nothing else there."""
    directory.mkdir(parents=True, exist_ok=True)
    npm = ["npm", "install", "--prefix", str(directory), "--no-audit", "--no-fund", "--no-save", "--fetch-retries=0"]
    run([*npm, *options, *packages], COMPILE_LIMIT)


def node_peers(directory: Path) -> tuple[str | None, dict[str, str]]:
    """Return the node program, None without it or any of its packages, and the versions of those."""
    node, modules = shutil.which("node"), directory / "node_modules"
    if node and len(node_versions(modules, NODE_PEERS)) < len(NODE_PEERS):
        npm_install(directory, NODE_PEERS, "--ignore-scripts")
    versions = node_versions(modules, NODE_PEERS)
    if not node or len(versions) < len(NODE_PEERS):
        return None, {}
    return node, {"node": (run([node, "--version"]) or "").strip().lstrip("v"), **versions}


def node_sqlite(node: str, directory: Path) -> dict[str, str]:
    """Return the version of NODE_SQLITE in `directory`, installed if need be; nothing if it does not work."""
    works = [node, "-e", f"new (require('{NODE_SQLITE}'))(':memory:')"]
    if run(works, cwd=directory if directory.exists() else None) is None:
        npm_install(directory, [f"{NODE_SQLITE}@{NODE_SQLITE_VERSION}"])
        if run(works, cwd=directory) is None:
            return {}
    return node_versions(directory / "node_modules", [NODE_SQLITE])


def go_peer(directory: Path) -> tuple[Path | None, dict[str, str]]:
    """Return the program made of GO_SOURCE, None if it cannot be made, and the versions of what it is made of."""
    go = shutil.which("go")
    if not go:
        return None, {}
    directory.mkdir(parents=True, exist_ok=True)
    replace = f"\nreplace {GO_JWT} => {GO_JWT_OF_DEBIAN}\n" if GO_JWT_OF_DEBIAN.exists() else ""
    (directory / "go.mod").write_text(GO_MOD + replace)
    shutil.copy(GO_SOURCE, directory)
    program = directory / "peer"
    # -modcacherw: `make clean` must be able to remove it.
    env = {"GO111MODULE": "on", "GOFLAGS": "-mod=mod -modcacherw"}
    env.update(GOPATH=str(directory / "path"), GOCACHE=str(directory / "cache"))
    if run([go, "build", "-o", str(program), "."], cwd=directory, env=env) is None:
        return None, {}
    version = (run([go, "env", "GOVERSION"]) or "").strip().replace("go", "")
    return program, {"go": version, "golang-jwt": GO_JWT_VERSION[1:]}


def missing_python(versions: dict[str, str]) -> dict[str, str]:
    """Return a sentence for each Python peer that is not there."""
    sentences = {
        package.lower(): f"{package} is not installed, and pip could not get it (offline?)."
        for package in LIBRARY_PEERS.values() if package not in versions
    }  # fmt: skip
    missing = sorted(set(SERVER_PEERS.values()) - set(versions))
    if missing:
        sentences["uvicorn"] = f"pip could not get {', '.join(missing)} (offline?)."
    return sentences


def with_node(peers: Peers, dist: Path) -> Peers:
    """Return `peers` with those that need Node."""
    directories = [dist / "bench-node", dist / "bench-node-sqlite"]
    node, versions = node_peers(directories[0])
    lacks = {}
    if node is None:
        sentence = "there is no node or npm here, or npm could not get the packages (offline?)."
        lacks = dict.fromkeys(("fastify", "fastify+sqlite", "express"), sentence)
    else:
        sqlite = node_sqlite(node, directories[1])
        versions.update(sqlite)
        if not sqlite:
            lacks["fastify+sqlite"] = f"npm could neither get nor compile {NODE_SQLITE}@{NODE_SQLITE_VERSION}."
    return peers._replace(
        node=node, node_modules=[each / "node_modules" for each in directories],
        versions={**peers.versions, **versions}, lacks={**peers.lacks, **lacks},
    )  # fmt: skip


def with_go(peers: Peers, dist: Path) -> Peers:
    """Return `peers` with that which needs Go."""
    program, versions = go_peer(dist / "bench-go")
    lacks = {}
    if program is None:
        there = "`go build` fails" if shutil.which("go") else "there is no `go` here"
        lacks["go"] = f"{there}: Debian's golang-go and golang-github-golang-jwt-jwt-dev are enough."
    return peers._replace(go=program, versions={**peers.versions, **versions}, lacks={**peers.lacks, **lacks})


def gather(dist: Path, python_wanted: bool, others_wanted: bool) -> Peers:
    """Return the wanted peers under `dist`, installing what is missing and can be had."""
    peers = Peers(sys.executable, {}, None, [], None, {})
    if python_wanted:
        python, versions = python_peers(dist / "bench-venv")
        peers = peers._replace(python=python, versions=versions, lacks=missing_python(versions))
    if others_wanted:
        peers = with_go(with_node(peers, dist), dist)
    return peers
