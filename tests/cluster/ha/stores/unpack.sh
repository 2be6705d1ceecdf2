#!/usr/bin/env bash
# Unpacks what the image of the stores adds to the cluster's base image: PostgreSQL with Patroni, and Redis with
# Sentinel, from Debian 12. Usage: unpack.sh FOLDER, which is made anew.
set -euo pipefail
folder=$1
packages=(
  postgresql-15 postgresql-client-15 libpq5 libicu72 libldap-2.5-0 libsasl2-2 libpam0g libaudit1 libcap-ng0
  libselinux1 libpcre2-8-0 libxml2 libxslt1.1 libzstd1 liblz4-1 libsystemd0 libcap2 libgcrypt20 libgpg-error0 libmd0
  libgnutls30 libp11-kit0 libidn2-0 libunistring2 libtasn1-6 libnettle8 libhogweed6 libgmp10
  patroni python3-cdiff python3-click python3-dateutil python3-pkg-resources python3-prettytable python3-psutil
  python3-psycopg2 python3-six python3-urllib3 python3-wcwidth python3-yaml libyaml-0-2
  redis-server redis-tools libatomic1 libhiredis0.14 libjemalloc2 liblua5.1-0 liblzf1 lua-bitop lua-cjson
)
rm -rf "$folder"
mkdir -p "$folder/debs" "$folder/root"
cd "$folder"
(cd debs && apt-get download -qq "${packages[@]}" 2>/dev/null)
for package in debs/*.deb; do
  dpkg-deb -x "$package" root
done
rm -rf debs root/usr/share/{doc,man,locale,lintian,postgresql-common} root/etc/{init.d,default,logrotate.d} \
  root/usr/lib/postgresql/15/lib/{bitcode,llvmjit*}
# /lib is a link in the base image's Debian.
if [ -d root/lib ]; then
  mkdir -p root/usr/lib && cp -a root/lib/. root/usr/lib/ && rm -rf root/lib
fi
