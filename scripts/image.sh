#!/usr/bin/env bash
# image.sh [NAME] [ARGUMENT OF THE BUILD ...]: builds the image with docker, podman or buildah, whichever answers, and runs the demo in it.
#   scripts/image.sh coh_lightning --build-arg TORCH_INDEX=
# pip's settings on this machine reach the build as a secret, and the local folders and files that they name as mounts to read from, so that no layer has them.
# Where no registry of images answers, the base is assembled from Debian's own packages; that takes root and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:-coh_lightning}
base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
own_base=localhost/coh_lightning_base:bookworm
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

for tool in docker podman buildah ""; do
  [ -n "$tool" ] || { echo "error: none of docker, podman and buildah answers; install one of them." >&2; exit 2; }
  "$tool" info >"$work/info" 2>&1 && break
done
if [ "$tool" = buildah ]; then # it keeps no layers unless told to, and its other isolations need what a container or a virtual machine may not have
  export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot} BUILDAH_LAYERS=true
fi

# what `pip config list` says as a file; the environment's settings are listed first and go before those of files
"$python" -m pip config list | "$python" -c '
import ast, configparser, sys
settings = configparser.RawConfigParser()
for line in reversed(sys.stdin.read().splitlines()):
    key, value = line.split("=", 1)
    section, option = key.rsplit(".", 1)
    settings.read_dict({"global" if section == ":env:" else section: {option: ast.literal_eval(value)}})
settings.write(sys.stdout)' >"$work/pip.conf"
options=(--secret "id=pip.conf,src=$work/pip.conf" --tag "$name")
for word in $(sed 's/^[^=]*=//' "$work/pip.conf"); do
  path=${word#file://}
  # the pages of a local index refer to files beside it
  [ "$path" = "$word" ] || path=$(dirname "$path")
  if [[ "$path" = /?* && -e "$path" ]]; then
    if [ "$tool" = docker ]; then
      echo "docker build mounts no folders of this machine, so its pip will not see $path; podman and buildah mount it." >&2
    else
      options+=(--volume "$path:$path:ro")
    fi
  fi
done

if timeout 300 "$tool" pull "$base"; then
  true
elif [ -n "$("$tool" images --quiet "$own_base" 2>"$work/log")" ]; then
  base=$own_base
else
  echo "no registry has $base: assembling a base from Debian's packages"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/root" >"$work/log" || { tail "$work/log" >&2; exit 1; }
  rm -rf "$work"/root/var/{cache/apt,lib/apt/lists}/* "$work"/root/usr/share/{doc,man,info,locale}/*
  tar --create --file "$work/root.tar" --directory "$work/root" .
  if [ "$tool" = buildah ]; then
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/root.tar" /
    buildah commit --quiet --rm "$container" "$own_base"
  else
    "$tool" import "$work/root.tar" "$own_base"
  fi
  base=$own_base
fi

"$tool" build "${options[@]}" --build-arg "BASE=$base" "${@:2}" .

# health: a sign of life of the commands, then the commands of `make demo`, as the image's user
{
  echo 'set -ex; id; python -m coh_lightning --version; python -m coh_lightning preview --num 1'
  make --no-print-directory --dry-run --old-file .venv/.installed RUN=python demo
} >"$work/commands"
if [ "$tool" = buildah ]; then
  container=$(buildah from --pull-never "$name")
  buildah run "$container" -- sh <"$work/commands"
  buildah rm "$container" >"$work/log"
else
  "$tool" run --rm --interactive --network none --entrypoint sh "$name" <"$work/commands"
fi
"$tool" images "$name"
