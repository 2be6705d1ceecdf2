#!/bin/sh
# Generates the Python code and its type stubs beside the .proto files.
# Usage: protos/generate.sh [OUTPUT_DIR]   (default: beside the .proto files)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
python=${PYTHON:-$here/../.venv/bin/python}
PATH=$(dirname "$python"):$PATH
export PATH
cd "$here"
# shellcheck disable=SC2046
"$python" -m grpc_tools.protoc -I . --python_out="$out" --grpc_python_out="$out" \
  --mypy_out="$out" --mypy_grpc_out="$out" $(find netmail -name '*.proto' | sort)
