#!/bin/sh
# sh etcd-certificates.sh ADDRESS...: make a CA, a certificate for the node at each address, and one for minijwt, which
# last 825 days. To /etc/etcd/ of each node, for its user etcd to read: ca.pem, and the node-ADDRESS.pem and .key of its
# address, as node.pem and node.key. To /etc/minijwt/ of each server: ca.pem, minijwt.pem and minijwt.key, see etcd.env.
# Nodes are server and client to each other. Only the CA has a CommonName: once it has users, etcd refuses a client's.
set -eu
umask 077
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
# Python 3.13 is strict about what a CA may be used for, and about key identifiers (RFC 5280 §4.2.1).
[ -e ca.key ] || openssl req -x509 $key -days 3650 -keyout ca.key -out ca.pem -subj "/CN=minijwt's etcd" \
  -addext keyUsage=critical,keyCertSign,cRLSign
sign() {
  printf '%s\n' subjectKeyIdentifier=hash authorityKeyIdentifier=keyid keyUsage=critical,digitalSignature "$2" >"$1.ext"
  openssl req -new $key -keyout "$1.key" -out "$1.csr" -subj "/O=minijwt"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile "$1.ext" -out "$1.pem"
  rm "$1.csr" "$1.ext"
}
for address; do
  sign "node-$address" "subjectAltName=IP:$address
extendedKeyUsage=serverAuth,clientAuth"
done
sign minijwt "extendedKeyUsage=clientAuth"
