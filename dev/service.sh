# shellcheck shell=bash
# What dev/kafka and dev/azurite share: where things lie, free ports, pid files, the watch over an owner.
# Sourced, never run. A service NAME of a KIND owns the directory $THALWEG_RUN/KIND/NAME and nothing else;
# it is ended by the pid written there, and only while that process names the directory in its command line.
#
#   THALWEG_CACHE  what is downloaded once        (default ~/.cache/thalweg)
#   THALWEG_RUN    data, logs and pids of services (default /tmp/thalweg-run-UID)
#   THALWEG_OWNER  a pid; when that process is gone, the service ends and its directory is removed
set -euo pipefail

cache=${THALWEG_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/thalweg}
run=${THALWEG_RUN:-${TMPDIR:-/tmp}/thalweg-run-$(id -u)}

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# service_dir KIND NAME: the service's directory, for a name that is safe as one.
service_dir() {
  [[ $2 =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || die "not a name for a service: '$2'"
  echo "$run/$1/$2"
}

# alive DIR: whether the process in DIR/pid still runs and is that service.
alive() {
  local pid
  pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] && grep -qsF -- "$1/" "/proc/$pid/cmdline"
}

# gone PID: whether nothing is left of a process, its sockets and files included: a zombie whose threads have all ended
# holds none, but while the last of them ends, the command line is empty already.
gone() {
  local tasks=("/proc/$1/task"/*)
  [ ! -e "/proc/$1" ] || { ((${#tasks[@]} == 1)) && grep -qs '^State:.[ZX]' "/proc/$1/status"; }
}

listening() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# free_port: a port below the ephemeral range that nobody listens on and no other start has taken just now.
free_port() {
  local port
  mkdir -p "$cache/ports"
  find "$cache/ports" -mindepth 1 -mmin +10 -delete 2>/dev/null || true
  for _ in {1..200}; do
    port=$((20000 + RANDOM % 12000))
    if mkdir "$cache/ports/$port" 2>/dev/null && ! listening "$port"; then
      echo "$port"
      return
    fi
  done
  die "found no free port"
}

# launch DIR COMMAND...: runs it apart from this shell, output to DIR/log, pid to DIR/pid. The caller holds fd 8 as lock.
launch() {
  local dir=$1
  shift
  setsid "$@" >>"$dir/log" 2>&1 </dev/null 8>&- &
  echo $! >"$dir/pid"
  # Until the new process has replaced its copy of this shell, it does not yet look like the service.
  for _ in {1..50}; do
    alive "$dir" && break
    sleep 0.1
  done
  [ -n "${THALWEG_OWNER:-}" ] || return 0
  (
    trap '' HUP INT TERM
    while kill -0 "$THALWEG_OWNER" 2>/dev/null; do
      alive "$dir" || exit 0
      sleep 1
    done
    end KILL "$dir"
    rm -rf "$dir"
    rmdir "${dir%/*}" "$run"
  ) >/dev/null 2>&1 </dev/null 8>&- &
}

# end SIGNAL DIR: signals the service, waits up to 20 s, then kills it.
end() {
  local pid
  alive "$2" || return 0
  pid=$(cat "$2/pid")
  kill "-$1" "$pid" 2>/dev/null || true
  for _ in {1..400}; do
    ! gone "$pid" || return 0
    sleep 0.05
  done
  kill -KILL "$pid" 2>/dev/null || true
  until gone "$pid"; do sleep 0.05; done
}

# await DIR SECONDS CHECK...: waits until the check holds; says what the log says if the service ends or the time is up.
await() {
  local dir=$1 until=$((SECONDS + $2))
  shift 2
  until "$@"; do
    if ! alive "$dir" || ((SECONDS >= until)); then
      tail -n 20 "$dir/log" >&2
      end KILL "$dir"
      die "did not start; the log is $dir/log"
    fi
    sleep 0.1
  done
}

# service_status KIND: one line a service, with what start printed.
service_status() {
  local dir
  for dir in "$run/$1"/*/; do
    dir=${dir%/}
    [ -e "$dir/pid" ] || continue
    if alive "$dir"; then
      echo "${dir##*/} running $(cat "$dir/ready" 2>/dev/null || echo starting)"
    else
      echo "${dir##*/} stopped"
    fi
  done
}

# retry COMMAND...: three times, for what goes over a network.
retry() {
  local n
  for n in 1 2 3; do
    "$@" && return
    sleep $((n * 3))
  done
  die "failed three times: $*"
}
