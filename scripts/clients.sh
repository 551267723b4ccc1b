#!/usr/bin/env bash
# Runs the tests with real clients: those with version 3 of OpenAI's Python package, and at the same time those with
# version 2 and those with Node, each run with a server of one thread. The second run's output comes last.
set -euo pipefail
cd "$(dirname "$0")/.."

run() {
    local version=$1
    shift
    "$(scripts/venv.sh "tests/clients/openai-$version/requirements.txt")/bin/python" -m pytest \
        tests/clients/openai-any "tests/clients/openai-$version" "$@"
}

output=$(mktemp)
trap 'rm -f "$output"' EXIT
run 2 tests/clients/node >"$output" 2>&1 &
second=0 first=0
run 3 || first=$?
wait $! || second=$?
cat "$output"
exit $((first > second ? first : second))
