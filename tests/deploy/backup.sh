#!/bin/sh
# sh backup.sh [DATABASE [COPY]]: copy the database while it is in use. If a step fails, the copy of last time stays.
set -eu
umask 077
from=${1:-/var/lib/minijwt/minijwt.db} to=${2:-/root/minijwt.backup}
rm -f "$to.new"
python3 -I -c 'import pathlib, sqlite3, sys
copy = sqlite3.connect(sys.argv[2])
sqlite3.connect(pathlib.Path(sys.argv[1]).resolve().as_uri() + "?mode=ro", uri=True).backup(copy)
copy.execute("SELECT name FROM user")
copy.close()' "$from" "$to.new"
mv "$to.new" "$to"
