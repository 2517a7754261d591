#!/bin/sh
# sh etcd-user.sh ENDPOINT, such as https://10.0.0.1:2379, where the certificates are: make etcd's user for minijwt, who
# may read and write below its prefix and nothing else. etcdctl asks for a password of root, then for one of minijwt.
set -eu
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS="$1"
export ETCDCTL_CACERT=ca.pem ETCDCTL_CERT=minijwt.pem ETCDCTL_KEY=minijwt.key
etcdctl user add root
etcdctl user add minijwt
etcdctl role add minijwt
etcdctl role grant-permission minijwt --prefix=true readwrite minijwt/
etcdctl user grant-role minijwt minijwt
etcdctl user grant-role root root
etcdctl auth enable
