# Keeps one PostgreSQL server for exactly as long as its owner lives. Run as `sh -c <this> guard BIN FOLDER KIND OPTIONS SYNC`
# by guard.rs, in a session of its own, as the user the server is to belong to.
#
# Standard input is a pipe whose other end only the owner holds: its end of file means that the owner has ended, however it
# ended. Commands come over it: `init` (the password in the next line) and `start PORT`; each is answered by one line, `ready`
# or `failed`. Standard error is the owner's lock file, so the lock lasts until this script has cleaned up.
# It must never end before the server does, and never stop a process that is not a server on its own folder.
set -u
umask 077
# Ctrl-C, a closing terminal and a service manager's TERM are the owner's business: it drains, then ends, then we stop the server.
trap '' HUP INT TERM

bin=$1
folder=$2
kind=$3 # keep | remove: what becomes of the folder
options=$4
sync=$5 # initdb's --no-sync, or nothing
data=$folder/data
log=$folder/log

# Is the process named in postmaster.pid really a server on our data? After a crash the number may belong to anybody.
running() {
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 1
    if [ -e /proc/self/cwd ]; then
        [ "$(readlink "/proc/$pid/cwd")" = "$data" ]
    else
        case "$(ps -o args= -p "$pid")" in *"$data"*) true ;; *) false ;; esac
    fi
}

stop() {
    rm -f "$folder/ready"
    running || return 0
    "$bin/pg_ctl" stop -D "$data" -m fast -w -t 10 ||
        "$bin/pg_ctl" stop -D "$data" -m immediate -w -t 10
} </dev/null >>"$log" 2>&1

init() {
    [ ! -f "$data/PG_VERSION" ] || return 0
    # Made under another name first: data that exists is whole, also if we are killed in the middle.
    rm -rf "$folder/data.new"
    printf '%s' "$1" >"$folder/password"
    # Not a user `sluice`: "$user" comes first in the search path, so a table made without a schema would land in our own.
    for locale in C.UTF-8 C; do # C.UTF-8 is not everywhere
        "$bin/initdb" -D "$folder/data.new" -U postgres --pwfile="$folder/password" --auth=scram-sha-256 \
            --encoding=UTF8 --locale=$locale --data-checksums $sync && mv "$folder/data.new" "$data" && return 0
        rm -rf "$folder/data.new"
    done
    return 1
} </dev/null >>"$log" 2>&1

start() {
    "$bin/pg_ctl" start -D "$data" -l "$log" -w -t 60 -o "$options -p $1" && : >"$folder/ready"
} </dev/null >>"$log" 2>&1

if [ -f "$log" ] && [ "$(wc -c <"$log")" -gt 10485760 ]; then mv "$log" "$log.old"; fi

stop # a leftover, whose own guard was killed

while IFS=' ' read -r command argument; do
    case $command in
    init)
        IFS= read -r password || break
        if init "$password"; then echo ready; else echo failed; fi
        ;;
    start)
        if start "$argument"; then echo ready; else stop; echo failed; fi
        ;;
    esac
done

stop
[ "$kind" != remove ] || rm -rf "$folder"
