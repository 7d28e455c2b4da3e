# shellcheck shell=bash
# What the launch scripts share: their help, their arguments, their errors. Sourced, never run.
set -euo pipefail
script="launch/$(basename "$0")"
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
  echo "$script needs bash 4.4 or newer; this is $BASH_VERSION. On macOS: brew install bash." >&2
  exit 2
}
dry_run=''
verb=''
command=()

# The comment at the head of a script is its help.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }

die() {
  echo "$script: $1 See $script --help." >&2
  exit 2
}

# need NAME MEANING: refuses to go on while the variable NAME is empty.
need() { [[ ${!1:-} ]] || die "$1 is not set. It is $2."; }

# need_number NAME: refuses what is not a whole number.
need_number() { [[ ${!1} =~ ^[0-9]+$ ]] || die "$1 is '${!1}', which is no whole number."; }

# need_program NAME WHERE: a dry run needs none.
need_program() {
  [[ $dry_run ]] || command -v "$1" > /dev/null || die "there is no $1 on the PATH. $2"
}

# parse_verb ALLOWED ARGUMENTS: fills verb, dry_run and, from what follows --, command.
parse_verb() {
  local allowed=" $1 "
  shift
  while (($#)); do
    case "$1" in
      --help) usage; exit 0 ;;
      --dry_run) dry_run=1 ;;
      --) shift; command=("$@"); break ;;
      -*) die "there is no option $1." ;;
      *)
        [[ -z $verb ]] || die "one verb at a time: $verb or $1? A command to run follows --."
        [[ $allowed == *" $1 "* ]] || die "there is no verb '$1'. There are:${allowed% }."
        verb="$1"
        ;;
    esac
    shift
  done
  [[ $verb ]] || die "which verb? One of:${allowed% }."
  [[ $verb != run || ${#command[@]} -gt 0 ]] ||
    die "run what? For instance: $script run -- flan-jax train --gin_file ... --workdir ..."
}

# The words as one line that a shell reads back as the same words.
quoted() {
  local word line='' quote="'\\''"
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/"$quote"}'"
    line+="$word "
  done
  echo "${line% }"
}

# Runs the words, or prints them in a dry run.
run() { if [[ $dry_run ]]; then quoted "$@"; else "$@"; fi; }
