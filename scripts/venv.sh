#!/usr/bin/env bash
# Where the Python environment of the end-to-end tests is: one for each list of packages and Python.
set -euo pipefail
cd "$(dirname "$0")/.."
fingerprint=$({ python3 --version; cat tests/e2e/requirements.txt; } | sha256sum | cut -c 1-12)
echo "${XDG_CACHE_HOME:-$HOME/.cache}/weir/venv-$fingerprint"
