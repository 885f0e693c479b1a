#!/usr/bin/env bash
# image.sh create: pulls or builds the image that machines start from, and prints its id. The image stays when the lab
# goes, because other labs on this computer start from it too.
# Environment: ENGINE STACK OWNER LOGIN IMAGE, and where IMAGE may be built: BASE_IMAGE, PACKAGES. INSECURE, if set:
# what is pulled comes from a registry without TLS, or with a certificate of an unknown authority.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=components/machines/local/lib.sh
source "$here/lib.sh"
: "${STACK:?}" "${OWNER:?}" "${ENGINE:?}" "${LOGIN:?}" "${IMAGE:?}"

# id_of IMAGE: its id, or nothing. Any error of the engine shows again at the pull or the build that follows.
id_of() {
  local found
  ! found=$("$ENGINE" image inspect --format '{{.Id}}' "$1" 2>&1) || printf '%s\n' "$found"
}

# pull SECONDS IMAGE: docker knows insecure registries by its daemon's settings only.
pull() {
  local options=()
  [[ -z ${INSECURE:-} || $ENGINE != podman ]] || options=(--tls-verify=false)
  timeout "$1" "$ENGINE" pull "${options[@]}" "$2"
}

# hint: what to do about a registry that docker does not trust.
hint() {
  [[ -z ${INSECURE:-} || $ENGINE != docker ]] ||
    printf '; write its host into "insecure-registries" of /etc/docker/daemon.json and restart docker'
}

from_registry() {
  log "building $1 from $BASE_IMAGE"
  timeout 1200 "$ENGINE" build --quiet --tag "$1" --build-arg "BASE_IMAGE=$BASE_IMAGE" \
    --build-arg "PACKAGES=$PACKAGES" --file "$here/Containerfile" "$here" >&2
}

# Packages are verified with Debian's archive keys, from this computer's apt or from debian-archive-keyring.
from_packages() {
  local sources=http://deb.debian.org/debian file
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    # On Debian 12, this computer's own sources are those that it can reach.
    if [[ -s $file ]] && grep -q bookworm "$file"; then sources=$file && break; fi
  done
  log "building $1 from Debian packages ($sources): no registry answers"
  # A killed build leaves a half-made root directory here; the next build removes it.
  rm -rf --one-file-system /var/tmp/cni-lab-image
  mkdir -p /var/tmp/cni-lab-image
  # TMPDIR is set for these two alone: once the directory is removed, podman fails where it is still set.
  # The image gets its name at the end, because half of a root directory would be an image, too.
  # shellcheck disable=SC2016  # mmdebstrap's own shell expands the hook.
  TMPDIR=/var/tmp/cni-lab-image SETUP="$here/local-image-setup.sh" timeout 1200 mmdebstrap --quiet --variant=apt \
    --include="${PACKAGES// /,}" --aptopt='Apt::Install-Recommends "false"' \
    --customize-hook='chroot "$1" bash -s <"$SETUP" >&2' bookworm - "$sources" |
    TMPDIR=/var/tmp/cni-lab-image "$ENGINE" import --change 'CMD ["/sbin/init"]' --change 'STOPSIGNAL SIGRTMIN+3' \
    - "$1-unfinished" >&2
  "$ENGINE" tag "$1-unfinished" "$1"
  "$ENGINE" rmi "$1-unfinished" >&2
  rm -rf --one-file-system /var/tmp/cni-lab-image
}

# Looks into the image with a container that is never started.
check() {
  # No node's name contains an underscore.
  local probe="cni-lab-$STACK-_probe" file said missing=()
  ! ours container "$probe" || remove_container "$probe"
  "$ENGINE" create --name "$probe" --label "cni-lab.stack=$STACK" --label "cni-lab.owner=$OWNER" --network none \
    --entrypoint /sbin/init "$1" >/dev/null
  for file in /usr/lib/systemd/systemd /usr/sbin/sshd /usr/bin/bash ${NEEDS_SUDO:+/usr/bin/sudo}; do
    said=$("$ENGINE" cp "$probe:$file" - 2>&1 >/dev/null) || missing+=("$file")
  done
  remove_container "$probe"
  ((${#missing[@]} == 0)) || fail "machines.image $1 lacks ${missing[*]} ($said);" \
    "name an image with systemd, openssh-server and sudo, or leave machines.image out to have one built"
}

create() {
  local said
  # A build may take 20 minutes.
  lock images/machine 1500
  remind "there is an image $IMAGE"
  if [[ -n $(id_of "$IMAGE") ]]; then
    log "$IMAGE is on this computer"
  elif [[ -z ${BASE_IMAGE:-} ]]; then
    said=$(pull 900 "$IMAGE" 2>&1) ||
      fail "machines.image $IMAGE is not on this computer and cannot be pulled ($(error_line "$said"));" \
        "build or load it first$(hint)"
  elif said=$(pull 300 "$BASE_IMAGE" 2>&1); then
    from_registry "$IMAGE"
  elif command -v mmdebstrap >/dev/null; then
    from_packages "$IMAGE"
  else
    fail "no machine image: $BASE_IMAGE cannot be pulled ($(error_line "$said")) and mmdebstrap is not installed;" \
      "apt install mmdebstrap, or name an image in machines.image$(hint)"
  fi
  reminded
  check "$IMAGE"
  id_of "$IMAGE"
}

NEEDS_SUDO=${LOGIN#root}
case ${1:-} in
  create) create ;;
  *) fail "usage: image.sh create" ;;
esac
