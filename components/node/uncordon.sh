# shellcheck shell=bash
# Runs on the first control plane. Lets pods onto the node UNCORDONED again, if drain.sh cordoned it.
: "${UNCORDONED:?}"

export KUBECONFIG=${CNI_LAB_KUBECONFIG:-$ADMIN_CONF}

ours=$(kube get node "$UNCORDONED" --ignore-not-found --output 'jsonpath={.metadata.annotations.cni-lab/cordoned}')
if [[ $ours == yes ]]; then
  kube uncordon "$UNCORDONED" >&2
  kube annotate node "$UNCORDONED" cni-lab/cordoned- >&2
fi
