# shellcheck shell=bash
# Installs Calico in the cluster of this control plane, by its operator or by its manifest.
# INSTALL: operator or manifest. DIRECTORY: where the manifests are kept. BASE: the URL they come from, without a final
# slash. SOURCES: lines "SHA256 FILE".
: "${INSTALL:?}" "${DIRECTORY:?}" "${BASE:?}" "${SOURCES:?}"
export KUBECONFIG=${CNI_LAB_KUBECONFIG:-$ADMIN_CONF}

# apply ARGUMENT…: `applied` has what kubectl says, a line for each object. On the server's side, because a client-side
# apply keeps the whole object in an annotation, and some CRDs are too large for one.
apply() {
  applied=$(kubectl apply --server-side --field-manager=cni-lab --force-conflicts "$@")
  printf '%s\n' "$applied" >&2
}

rolled_out() { kube --namespace "$1" rollout status --timeout=5s "$2"; }

# shellcheck disable=SC2016  # the template's variables
ESTABLISHED='{{range .items}}{{$name := .metadata.name}}{{with .status}}{{range .conditions}}'
# shellcheck disable=SC2016
ESTABLISHED+='{{if and (eq .type "Established") (eq .status "True")}}{{$name}}{{"\n"}}{{end}}{{end}}{{end}}{{end}}'

# established: whether the API serves every CRD that was just applied. One list tells it of all of them: `kubectl wait`
# reads one after the other, which takes longer than applying them.
established() {
  local served name _ missing=()
  served=$(kube get customresourcedefinitions --output "go-template=$ESTABLISHED") || return
  while read -r name _; do
    [[ $name == customresourcedefinition.* ]] || continue
    name=${name#*/}
    [[ $'\n'$served$'\n' == *$'\n'"$name"$'\n'* ]] || missing+=("$name")
  done <<<"$applied"
  ((${#missing[@]} == 0)) || { echo "not Established: ${missing[*]}" && return 1; }
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
    (wait_for 120 "Calico's CRDs to be Established" established) ||
      fail "the API does not take Calico's CRDs, see above. Look: kubectl describe crd installations.operator.tigera.io"
    apply --filename "$DIRECTORY/${files[1]}"
    (wait_for 300 "Calico's operator to run" \
      with_reasons "reasons tigera-operator" rolled_out tigera-operator deployment/tigera-operator) ||
      fail "Calico's operator does not start. Look: kubectl -n tigera-operator describe pods; an image that cannot be" \
        "pulled is the usual cause (mirrors.images in the stack file)"
    ;;
  manifest)
    apply --kustomize "$DIRECTORY"
    (wait_for 120 "Calico's CRDs to be Established" established) ||
      fail "the API does not take Calico's CRDs, see above. Look: kubectl describe crd ippools.crd.projectcalico.org"
    ;;
esac
