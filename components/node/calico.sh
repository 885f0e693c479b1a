# shellcheck shell=bash
# Installs Calico in the cluster of this control plane, by its operator or by its manifest.
# INSTALL: operator or manifest. DIRECTORY: where the manifests are kept. BASE: the URL they come from, without a final
# slash. SOURCES: lines "SHA256 FILE".
: "${INSTALL:?}" "${DIRECTORY:?}" "${BASE:?}" "${SOURCES:?}"
export KUBECONFIG=${CNI_LAB_KUBECONFIG:-$ADMIN_CONF}

# On the server's side, because a client-side apply keeps the whole object in an annotation, and some CRDs are too large
# for one.
apply() { kubectl apply --server-side --field-manager=cni-lab --force-conflicts "$@" >&2; }

# stuck NAMESPACE WHAT: print what is known about the pods there, then fail.
stuck() {
  kubectl --namespace "$1" get pods --output wide >&2 || true
  kubectl --namespace "$1" get events --field-selector type=Warning --sort-by .lastTimestamp 2>&1 |
    tail -n 10 >&2 || true
  fail "Calico's $2 does not start. Look: kubectl -n $1 describe pods; an image that cannot be pulled is the usual" \
    "cause (mirrors.images in the stack file)"
}

case $INSTALL in
  operator) other=manifest theirs=(--namespace kube-system daemonset/calico-node) ;;
  manifest) other=operator theirs=(--namespace tigera-operator deployment/tigera-operator) ;;
  *) fail "INSTALL=$INSTALL: want operator or manifest" ;;
esac
found=$(kubectl get "${theirs[@]}" --ignore-not-found --output name)
[[ -z $found ]] ||
  fail "Calico was installed by $other in this cluster, and the stack file says calico.install: $INSTALL:" \
    "a live lab cannot change that; set it back to $other, or destroy the lab and bring it up again"

files=()
while read -r sum file; do
  fetch "$BASE/$file" "$sum" "$DIRECTORY/$file"
  files+=("$file")
done <<<"${SOURCES%$'\n'}"
write_files

case $INSTALL in
  operator)
    [[ ${#files[@]} == 2 ]] || fail "SOURCES: want the CRDs and the operator, got ${files[*]}"
    apply --filename "$DIRECTORY/${files[0]}"
    kubectl wait --for=condition=Established --timeout=120s --filename "$DIRECTORY/${files[0]}" >&2 ||
      fail "Calico's CRDs are not Established within 120 s. Look: kubectl describe crd installations.operator.tigera.io"
    apply --filename "$DIRECTORY/${files[1]}"
    kubectl --namespace tigera-operator rollout status deployment/tigera-operator --timeout=300s >&2 ||
      stuck tigera-operator operator
    ;;
  manifest)
    apply --kustomize "$DIRECTORY"
    crds=$(kubectl get customresourcedefinitions --output name | grep -F .crd.projectcalico.org)
    # shellcheck disable=SC2086  # one name a word
    kubectl wait --for=condition=Established --timeout=120s $crds >&2 ||
      fail "Calico's CRDs are not Established within 120 s. Look: kubectl describe crd ippools.crd.projectcalico.org"
    ;;
esac
