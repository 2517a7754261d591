"""Make dist/, which is what an operator carries to a machine:  python3 tests/dist.py [folder]

    minijwt.pyz   the server and the library in one file
    deploy/       the configuration files of tests/deploy/
    SHA256SUMS    of all these; its own sum is printed, so that one line vouches for everything

The same sources make the same bytes on every machine, at any time and with any Python. They are stored as they are, so
that `unzip -p minijwt.pyz server.py | less` shows what runs.
"""

import hashlib
import io
import shutil
import sys
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = b"""\
import sys

if sys.version_info < (3, 9):
    sys.exit("minijwt.pyz needs Python 3.9 or newer; this is " + sys.version.split()[0])

import __future__
import os
import re
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

loader = __spec__.loader
# Python's compiler takes forty times the size of its source, and most of that stays with the process: so each file is
# compiled a room at a time. The future import of its first room holds for all of them.
for name in ("minijwt", "server"):
    spec = ModuleSpec(name, loader, origin=os.path.join(loader.archive, name + ".py"))
    spec.has_location = True
    module = sys.modules[name] = module_from_spec(spec)
    before = ""
    for room in re.split("(?m)^(?=# ---- )", loader.get_source(name)):
        # With the empty lines a traceback has the line numbers of the file.
        code = compile(before + room, module.__file__, "exec", __future__.annotations.compiler_flag)
        exec(code, vars(module))
        before += "\\n" * room.count("\\n")

import server

sys.exit(server.main())
"""
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that a zip can hold
UNIX = 3  # the system of the modes below (PKWARE APPNOTE §4.4.2)
READABLE_FILE = 0o100644 << 16


def pyz(sources):
    """Return the bytes of the archive with `sources`, a dict of name → bytes."""
    archive = io.BytesIO(SHEBANG)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
        for name, source in {"__main__.py": MAIN, **sources}.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = UNIX, READABLE_FILE
            file.writestr(entry, source)
    return archive.getvalue()


def main(folder):
    files = {"minijwt.pyz": pyz({name: (TOP / name).read_bytes() for name in ("minijwt.py", "server.py")})}
    for path in sorted((TOP / "tests" / "deploy").iterdir()):
        files[f"deploy/{path.name}"] = path.read_bytes()
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode("ascii")
    shutil.rmtree(folder / "deploy", ignore_errors=True)
    (folder / "deploy").mkdir(parents=True)
    for name, data in {**files, "SHA256SUMS": sums}.items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o755 if data.startswith(b"#!") else 0o644)
    print(f"{hashlib.sha256(sums).hexdigest()}  SHA256SUMS")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else TOP / "dist")
