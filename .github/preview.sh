#!/usr/bin/env bash
# Runs pulumi preview for each of STACKS that is also in WITH_STATE, the stacks whose state this job can read, and
# writes the results into the job's summary. Goes on after a failure, and fails at the end.
set -euo pipefail
: "${STACKS?}" "${WITH_STATE?}" "${GITHUB_STEP_SUMMARY:?}"

LIMIT=150000 # bytes of each; the limit of a summary is 1 MiB
failed=()
for stack in $STACKS; do
  [[ " $WITH_STATE " == *" $stack "* ]] || continue
  output=$(mktemp)
  verdict='done'
  if ! ./lab preview "$stack" --diff --non-interactive --color never >"$output" 2>&1; then
    verdict='failed'
    failed+=("$stack")
  fi
  # The last lines matter most: the summary of changes, or the error.
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
