#!/bin/sh
# sh login-certificate.sh NAME: make login.pem and login.key for the host NAME, and the first time a CA to sign them.
# Run it where ca.key is safe. login.pem and login.key go to /etc/minijwt of the server; clients must trust ca.pem.
# P-256: with RSA of 3,072 bits a handshake costs the server ten times as much.
set -eu
umask 077
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
[ -e ca.key ] || openssl req -x509 $key -days 3650 -keyout ca.key -out ca.pem -subj "/CN=Our CA" \
  -addext keyUsage=critical,keyCertSign,cRLSign
openssl req -new $key -keyout login.key -out login.csr -subj "/CN=$1" -addext "subjectAltName=DNS:$1"
openssl x509 -req -in login.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 397 -copy_extensions copy -out login.pem
rm login.csr
