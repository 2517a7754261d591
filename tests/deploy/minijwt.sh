#!/bin/sh
# /usr/local/sbin/minijwt, mode 755: the commands of minijwt.pyz as the unit's user, on the unit's database.
exec systemd-run --quiet --pty --pipe --wait --collect -p DynamicUser=yes -p User=minijwt -p StateDirectory=minijwt \
  -p WorkingDirectory=/var/lib/minijwt -p EnvironmentFile=/etc/minijwt/.env -p UMask=0077 \
  /usr/bin/python3 -I /opt/minijwt/minijwt.pyz "$@"
