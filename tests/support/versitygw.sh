#!/bin/sh
# Builds the S3 server of the tests from its Go module, once for each version, and prints where it is.
set -eu
version=v1.8.0
folder=${NETMAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/netmail}/versitygw-$version
if [ ! -x "$folder/versitygw" ]; then
  GOBIN=$folder go install "github.com/versity/versitygw/cmd/versitygw@$version" >&2
fi
echo "$folder/versitygw"
