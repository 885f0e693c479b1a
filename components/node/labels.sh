# shellcheck shell=bash
# Runs on the first control plane. Gives a Node the labels and taints of the stack file, and takes away those that only
# an earlier stack file had. A machine that has not joined yet gets them from kubelet when it registers.
# LABELLED: the Node. LABELS: words KEY=VALUE. TAINTS: words KEY=VALUE:EFFECT or KEY:EFFECT.
: "${LABELLED:?}" "${LABELS?}" "${TAINTS?}"

export KUBECONFIG=$ADMIN_CONF
# Lines "label KEY" and "taint KEY:EFFECT": what the Node has from a stack file.
RECORD=$CNI_LAB_STATE/labels/$LABELLED

read -r -a labels <<<"$LABELS"
read -r -a taints <<<"$TAINTS"
wanted=()
for label in "${labels[@]}"; do wanted+=("label ${label%%=*}"); done
for taint in "${taints[@]}"; do
  key=${taint%:*}
  wanted+=("taint ${key%%=*}:${taint##*:}")
done

found=$(kube get node "$LABELLED" --ignore-not-found --output \
  'go-template=found {{range .spec.taints}}{{.key}}:{{.effect}} {{end}}')
if [[ -n $found ]]; then
  gone_labels=() gone_taints=()
  if [[ -e $RECORD ]]; then
    while read -r kind key; do
      if contains "$kind $key" "${wanted[@]}"; then continue; fi
      case $kind in
        label) gone_labels+=("$key-") ;;
        # kubectl fails if it is to remove a taint that is not there.
        taint) if [[ " $found " == *" $key "* ]]; then gone_taints+=("$key-"); fi ;;
        *) fail "$RECORD has an unknown line ($kind $key): remove that file and repeat" ;;
      esac
    done <"$RECORD"
  fi
  # Before the change, so that an interrupted run forgets nothing.
  for entry in "${wanted[@]}"; do add_line "$entry" "$RECORD"; done
  if ((${#labels[@]} + ${#gone_labels[@]})); then
    kube label node "$LABELLED" --overwrite "${labels[@]}" "${gone_labels[@]}" >&2
  fi
  if ((${#taints[@]} + ${#gone_taints[@]})); then
    kube taint node "$LABELLED" --overwrite "${taints[@]}" "${gone_taints[@]}" >&2
  fi
fi
if ((${#wanted[@]})); then write_list "$RECORD" "${wanted[@]}"; else rm -f -- "$RECORD"; fi
