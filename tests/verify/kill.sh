# shellcheck shell=bash
# On a node: kill break before each of its commands that may change something, and then mend before each of its own.
# After each kill, mend must bring the node back to what it was. Comes after look.sh.
#
# BREAK, MEND: the programs. AFTER_BREAK, AFTER_MEND: the line after which each is killed; empty: from its first on.
#
# Prints a line "PROGRAM TAB yes|no TAB COMMAND" for each command before which a program was killed: whether the fault
# was in the journal then. Fails at the first node that is not as it was, and shows the difference.
: "${BREAK:?}" "${MEND:?}" "${AFTER_BREAK=}" "${AFTER_MEND=}"
declare -A program=([break]=$BREAK [mend]=$MEND) after_line=([break]=$AFTER_BREAK [mend]=$AFTER_MEND)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
export KILL_POINTS=$work/points KILLED_BEFORE=$work/command KILL_AT=0

# What a program begins with that is to be killed before the command number KILL_AT of those that may change something.
# Before each of the others the machine is as before the next one that may: a command that only looks, or that changes
# what bash alone knows. A function's commands count, and not its call. Whatever is not known here counts.
#
# The commands are counted in a file, since a subshell cannot count for its parent.
before_command() { # COMMAND
  local text=$1 points
  # What is written there, nothing reads after the program's end.
  # shellcheck disable=SC2016 # the program's text
  text=${text//'> "$errors"'/}
  text=${text//'1>&2'/}
  text=${text//'2>&1'/}
  # At the beginning of a function its call is seen again.
  if [[ ${FUNCNAME[1]-} == "${text%% *}" ]]; then return; fi
  case $text in
    '[['* | '(('* | true) return ;;
    *'>'* | find*' -exec '*) ;;
    case\ * | for\ * | local\ * | return* | read\ * | set\ * | exit* | :\ * | trap\ * | umask\ *) return ;;
    echo\ * | printf\ * | date\ * | find\ * | sort* | tail\ * | tac\ * | sed\ * | grep\ *) return ;;
    sync\ * | flock\ * | cmp\ * | ip\ *' show'* | 'bridge fdb show'*) return ;;
    *)
      if declare -F "${text%% *}" >/dev/null; then return; fi
      # An assignment: a command in it is counted by itself. Without =~, whose result the program may still need.
      # shellcheck disable=SC2016 # the program's text
      if [[ $text == [A-Za-z_]*=* && ${text%%[=[]*} != *[!A-Za-z_]* ]]; then
        text=${text#*=}
        if [[ $text != *' '* || $text == '$('*')' || $text == '('*')' || $text == "'"*"'" ]]; then return; fi
      fi
      ;;
  esac
  printf . >>"$KILL_POINTS"
  read -r points <"$KILL_POINTS" || :
  ((${#points} == KILL_AT)) || return 0
  printf '%s\n' "${1%%$'\n'*}" >"$KILLED_BEFORE"
  kill -9 $$ "$BASHPID"
}
trap_commands="$(declare -f before_command)
set -T
trap 'before_command \"\$BASH_COMMAND\"' DEBUG
"

run() { bash -c "$1" >"$work/printed" 2>&1; }
mended() { run "$MEND" || { cat -- "$work/printed" && exit 1; }; }
in_journal() { compgen -G '/var/lib/cni-lab/faults/[0-9]*' >/dev/null; }
# same TEXT WANTED WHEN
same() {
  [[ $1 == "$2" ]] || { echo "$3" && diff <(echo "$2") <(echo "$1"); exit 1; }
}

# kill_before_each PROGRAM PART…: those parts of the node are looked at after each kill.
kill_before_each() {
  local which=$1 number status text part wanted='' written line=${after_line[$1]}
  shift
  for part in "$@"; do wanted+=${sound[$part]}$'\n'; done
  text=${program[$which]}
  if [[ -z $line ]]; then
    text=$trap_commands$text
  else
    [[ $text == *$'\n'$line$'\n'* ]] || { echo "$which has no line '$line'" && exit 1; }
    text=${text/"$line"$'\n'/"$line"$'\n'"$trap_commands"}
  fi
  for ((number = 1; number < 200; number++)); do
    [[ $which == break ]] || run "$BREAK"
    : >"$KILL_POINTS"
    status=0
    KILL_AT=$number run "$text" || status=$?
    # It came to its end.
    if ((status == 0)); then break; fi
    ((status == 137)) || { cat -- "$work/printed" && exit 1; }
    written=no
    if in_journal; then written=yes; fi
    mended
    same "$(look "$@")" "${wanted%$'\n'}" "$which was killed before: $(<"$KILLED_BEFORE")"
    printf '%s\t%s\t%s\n' "$which" "$written" "$(<"$KILLED_BEFORE")"
  done
  ((status == 0))
  mended
}

mended
mapfile -t all < <(parts)
declare -A sound=()
for part in "${all[@]}"; do sound[$part]=$(look "$part"); done
run "$BREAK"
changed=()
for part in "${all[@]}"; do
  [[ $part == files || $(look "$part") == "${sound[$part]}" ]] || changed+=("$part")
done
[[ ${#changed[@]} -gt 0 || $(look files) != "${sound[files]}" ]] ||
  { echo "the fault changes nothing that is looked at" && exit 1; }
mended
# A program that was killed may leave a file anywhere. What the fault does not change is looked at once.
kill_before_each break files "${changed[@]}"
kill_before_each mend files "${changed[@]}"
for part in "${all[@]}"; do same "$(look "$part")" "${sound[$part]}" "in the end"; done
