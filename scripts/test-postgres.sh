#!/usr/bin/env bash
# A PostgreSQL server for one run of tests. `test-postgres.sh DIRECTORY PID` starts one that listens on a socket in
# DIRECTORY, unless it runs already, and stops and removes it as soon as process PID has ended in whatever way.
# `test-postgres.sh DIRECTORY stop` and `start` stop and start an existing one. Its user is `weir`, without a password.
# The tests call this script by themselves.
set -euo pipefail

directory=${1:?a directory} watched=${2:?a process to wait for, stop or start}

# initdb refuses to run as root; Debian's package makes the user postgres.
as_owner() {
    if [[ $(id -u) == 0 ]]; then
        runuser -u postgres -- "$@"
    else
        "$@"
    fi
}

bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) || true
[[ -n $bin ]] || bin=$(dirname "$(command -v initdb)") 2>/dev/null ||
    { echo "PostgreSQL is not installed: scripts/setup.sh test" >&2; exit 1; }

if [[ $watched == stop || $watched == start ]]; then
    cd "$directory"
    as_owner "$bin/pg_ctl" --pgdata=data --log=data/log --mode=fast --wait "$watched" >/dev/null 2>&1 </dev/null
    exit
fi

# The server must not keep inherited files open while it runs: one may be a lock of the calling process.
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-
# Several tests may call this at the same time; the first one starts the server.
exec 9>"$directory.lock"
flock 9
[[ ! -e $directory/ready ]] || exit 0

mkdir -m 711 "$directory"
[[ $(id -u) != 0 ]] || chown postgres "$directory"
cd "$directory"
as_owner "$bin/initdb" --no-sync --no-instructions --auth=trust --username=weir --encoding=UTF8 --locale=C data >log 2>&1 ||
    { cat log >&2; exit 1; }
cat >>data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$directory'
max_connections = 300
wal_level = minimal
max_wal_senders = 0
autovacuum = off
CONF
as_owner "$bin/pg_ctl" --pgdata=data --log=data/log --wait start >>log 2>&1 9>&- </dev/null ||
    { cat log data/log >&2; exit 1; }
touch ready

watch() {
    while kill -0 "$watched" 2>/dev/null; do sleep 1; done
    as_owner "$bin/pg_ctl" --pgdata="$directory/data" --mode=immediate stop
    rm -rf "$directory" "$directory.lock"
}
export -f watch as_owner
export bin directory watched
setsid bash -c watch </dev/null >/dev/null 2>&1 9>&- &
