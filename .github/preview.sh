#!/usr/bin/env bash
# pulumi preview of each of STACKS that has a state of its own to compare with (WITH_STATE), into the job's summary.
# All are tried; fails where one did.
set -euo pipefail
: "${STACKS?}" "${WITH_STATE?}" "${GITHUB_STEP_SUMMARY:?}"

LIMIT=150000 # bytes of each: a summary holds 1 MiB
failed=()
for stack in $STACKS; do
  [[ " $WITH_STATE " == *" $stack "* ]] || continue
  output=$(mktemp)
  verdict='done'
  if ! ./lab preview "$stack" --diff --non-interactive --color never >"$output" 2>&1; then
    verdict='failed'
    failed+=("$stack")
  fi
  # The last lines count: the summary of changes, or what went wrong.
  {
    printf '<details><summary>pulumi preview of %s: %s</summary>\n\n``````diff\n' "$stack" "$verdict"
    tail -c "$LIMIT" -- "$output"
    printf '\n``````\n\n</details>\n\n'
  } | tee -a "$GITHUB_STEP_SUMMARY"
  rm -f -- "$output"
done
if ((${#failed[@]})); then
  echo "::error::pulumi preview failed: ${failed[*]}"
  exit 1
fi
