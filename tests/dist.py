"""Make dist/minijwt.pyz, the server and the library in one file, and dist/SHA256SUMS:  python3 tests/dist.py [folder]

The same sources make the same bytes, whoever makes them, where, when and with which Python: nothing of the machine goes
in. The sources are stored as they are, so that `unzip -p minijwt.pyz server.py | less` shows what runs.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = b"""\
import sys

if sys.version_info < (3, 9):
    sys.exit("minijwt.pyz needs Python 3.9 or newer; this is " + sys.version.split()[0])

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
    data = pyz({name: (TOP / name).read_bytes() for name in ("minijwt.py", "server.py")})
    folder.mkdir(exist_ok=True)
    path = folder / "minijwt.pyz"
    path.write_bytes(data)
    path.chmod(0o755)
    line = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"
    (folder / "SHA256SUMS").write_text(line, "ascii")
    print(line, end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else TOP / "dist")
