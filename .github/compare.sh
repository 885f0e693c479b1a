#!/usr/bin/env bash
# Compares the checkout with the revision BASE: comment.md, comparison.json and stacks.txt in OUT, the comment in the
# job's summary, the touched stacks as output. LABELLED=true allows that a control plane is replaced.
set -euo pipefail
: "${BASE:?}" "${OUT:?}" "${LABELLED:?}" "${GITHUB_OUTPUT:?}" "${GITHUB_STEP_SUMMARY:?}"

status=0
./lab plan --against "$BASE" --out "$OUT" --gate || status=$?
if [[ -f $OUT/comment.md ]]; then
  cat -- "$OUT/comment.md" >>"$GITHUB_STEP_SUMMARY"
  printf 'stacks=%s\n' "$(paste -sd ' ' -- "$OUT/stacks.txt")" >>"$GITHUB_OUTPUT"
fi
if ((status == 4)); then
  if [[ $LABELLED == true ]]; then
    echo '::notice::a control plane would be replaced, and the label replace-control-plane allows it'
    exit 0
  fi
  echo '::error::a control plane would be replaced: if that is wanted, add the label replace-control-plane'
fi
exit "$status"
