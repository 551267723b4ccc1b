#!/usr/bin/env bash
# Prints the path of the virtual environment for a list of packages, by default that of the end-to-end tests. There is one
# for each list and version of Python.
set -euo pipefail
cd "$(dirname "$0")/.."
requirements=${1:-tests/e2e/requirements.txt}
fingerprint=$({ python3 --version; cat "$requirements"; } | sha256sum | cut -c 1-12)
echo "${XDG_CACHE_HOME:-$HOME/.cache}/weir/venv-$fingerprint"
