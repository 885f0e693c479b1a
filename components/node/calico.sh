# shellcheck shell=bash
# Installs Calico in the cluster of this control plane, by its operator or by its manifest.
# INSTALL: operator or manifest. DIRECTORY: where the manifests are kept. BASE: the URL they come from, without a final
# slash. SOURCES: lines "SHA256 FILE".
: "${INSTALL:?}" "${DIRECTORY:?}" "${BASE:?}" "${SOURCES:?}"
export KUBECONFIG=${CNI_LAB_KUBECONFIG:-$ADMIN_CONF}

# On the server's side, because a client-side apply keeps the whole object in an annotation, and some CRDs are too large
# for one.
apply() { kubectl apply --server-side --field-manager=cni-lab --force-conflicts "$@" >&2; }

rolled_out() { kube --namespace "$1" rollout status --timeout=5s "$2"; }
established() { kube wait --for=condition=Established --timeout=5s "$@"; }

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
    (wait_for 120 "Calico's CRDs to be Established" established --filename "$DIRECTORY/${files[0]}") ||
      fail "the API does not take Calico's CRDs, see above. Look: kubectl describe crd installations.operator.tigera.io"
    apply --filename "$DIRECTORY/${files[1]}"
    (wait_for 300 "Calico's operator to run" \
      with_reasons "reasons tigera-operator" rolled_out tigera-operator deployment/tigera-operator) ||
      fail "Calico's operator does not start. Look: kubectl -n tigera-operator describe pods; an image that cannot be" \
        "pulled is the usual cause (mirrors.images in the stack file)"
    ;;
  manifest)
    apply --kustomize "$DIRECTORY"
    crds=$(kubectl get customresourcedefinitions --output name | grep -F .crd.projectcalico.org)
    # shellcheck disable=SC2086  # one name a word
    (wait_for 120 "Calico's CRDs to be Established" established $crds) ||
      fail "the API does not take Calico's CRDs, see above. Look: kubectl describe crd ippools.crd.projectcalico.org"
    ;;
esac
