#!/usr/bin/env bash
# Compares the checkout with the revision BASE. Writes comment.md, comparison.json and stacks.txt into the folder OUT,
# the comment into the job's summary, and the changed stacks into the step's outputs. Fails if a control plane would
# be replaced, unless LABELLED is true.
set -euo pipefail
: "${BASE:?}" "${OUT:?}" "${LABELLED:?}" "${GITHUB_OUTPUT:?}" "${GITHUB_STEP_SUMMARY:?}"

status=0
./lab plan --against "$BASE" --out "$OUT" --gate || status=$?
if [[ -f $OUT/comment.md ]]; then
  cat -- "$OUT/comment.md" >>"$GITHUB_STEP_SUMMARY"
  printf 'stacks=%s\n' "$(paste -sd ' ' -- "$OUT/stacks.txt")" >>"$GITHUB_OUTPUT"
fi
if ((status == 4)); then
  # No label helps where a live lab refuses the change, or the policy does.
  if jq --exit-status '[.stacks[] | .refused + .policy] | add | length > 0' "$OUT/comparison.json" >/dev/null; then
    echo '::error::a live lab cannot take this change, or the policy refuses it: see the comment for which and why'
    exit "$status"
  fi
  if [[ $LABELLED == true ]]; then
    echo '::notice::a control plane would be replaced, and the label replace-control-plane allows it'
    exit 0
  fi
  echo '::error::a control plane would be replaced: if that is intended, add the label replace-control-plane'
fi
exit "$status"
