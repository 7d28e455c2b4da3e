#!/usr/bin/env bash
# Runs one command as several processes of this machine, on CPU devices of their own.
#
#   launch/local.sh --processes 2 --devices 4 -- flan-jax train --gin_file runs/demo.gin ...
#
#   --processes N   how many (default: 2)
#   --devices N     CPU devices of each process (default: 1)
#   --logs DIR      a log for each process, DIR/0.log and so on (default: runs/local)
#   --grace N       seconds between SIGTERM and SIGKILL (default: 30)
#   --dry_run       print the commands and stop
#
# Each process is given --coordinator_address, --process_count and --process_id after its own
# arguments. One that fails ends them all, and its exit status is handed on. One that leaves with 75
# has saved because it was told to, so the others get the grace time to finish by themselves.
# SIGTERM and Ctrl-C are handed on to every process.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
processes=2 devices=1 logs=runs/local grace=30

while (($#)); do
  case "$1" in
    --help) usage; exit 0 ;;
    --dry_run) dry_run=1 ;;
    --logs) logs="${2:?--logs needs a folder}"; shift ;;
    --processes | --devices | --grace)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "$1 takes a whole number from 1 on, not '${2:-}'."
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    --) shift; command=("$@"); break ;;
    *) die "there is no option $1. The command to run follows --." ;;
  esac
  shift
done
((${#command[@]})) || die 'run what? The command follows --.'
need_program "${command[0]}" 'Install it, or name it by its path.'

port=$((20000 + RANDOM % 10000))
while (: <> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do port=$((port + 1)); done  # somebody's

running=() status=0 deadline=''
forward() { kill -TERM "${running[@]}" 2> /dev/null || true; }
trap forward TERM INT

[[ $dry_run ]] || mkdir -p "$logs"
for ((i = 0; i < processes; i++)); do
  words=(env JAX_PLATFORMS=cpu
    "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices"
    "${command[@]}" --coordinator_address "127.0.0.1:$port" --process_count "$processes"
    --process_id "$i")
  if [[ $dry_run ]]; then
    echo "$(quoted "${words[@]}") > $(quoted "$logs/$i.log") 2>&1 &"
  else
    "${words[@]}" > "$logs/$i.log" 2>&1 &
    running[i]=$!
  fi
done
[[ $dry_run ]] || echo "$processes processes; follow one with: tail -f $(quoted "$logs/0.log")"

while ((${#running[@]})); do
  sleep 0.1 || true # Ctrl-C ends it
  for i in "${!running[@]}"; do
    kill -0 "${running[i]}" 2> /dev/null && continue
    code=0
    wait "${running[i]}" || code=$?
    unset "running[i]"
    ((code == 0 || status != 0)) && continue
    status=$code deadline=$((SECONDS + grace + 1)) # at least: SECONDS is rounded
    echo "Process $i left with exit status $code; $logs/$i.log ends:" >&2
    tail -n 5 "$logs/$i.log" >&2
    ((code == 75)) || forward
  done
  if [[ $deadline ]] && ((SECONDS >= deadline && ${#running[@]})); then
    kill -KILL "${running[@]}" 2> /dev/null || true
  fi
done
exit "$status"
