# Sourced by the scripts of this folder: names, paths, messages, and a clock for each phase.
# shellcheck shell=bash
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions
source "$here/versions"

cluster=${CLUSTER_NAME:-ecomm}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ecomm-data-pipeline/cluster
bin=$cache/bin
mkdir -p "$bin"
export PATH=$bin:$PATH KUBECONFIG=$cache/$cluster.kubeconfig

say() { printf 'cluster: %s\n' "$*" >&2; }

# die CODE MESSAGE: 3 = this machine cannot run a cluster and says how it could; 64 = wrong usage; 1 = something failed.
die() {
  local code=$1
  shift
  say "$*"
  exit "$code"
}

# help SCRIPT: its opening comment.
help() { sed -n '2,$ {/^# shellcheck/q; /^#/!q; s/^# \{0,1\}//p}' "$1"; }

# phase NAME COMMAND…: run it, and print one line with the seconds that it took.
phase() {
  local name=$1 start=$SECONDS status=0
  shift
  "$@"
  status=$?
  say "$(printf '%-34s %4d s' "$name" $((SECONDS - start)))"
  return "$status"
}

# alone WHAT COMMAND…: one at a time on this machine.
alone() {
  local lock=$cache/$1.lock
  shift
  if command -v flock >/dev/null; then
    exec 9>"$lock"
    flock -n 9 || { say "waiting for another cluster script to end" && flock 9; }
  fi
  "$@"
}

# registries: whether images and tools can be downloaded. CLUSTER_SOURCE=registry|build decides without asking.
registries() {
  export CLUSTER_SOURCE=${CLUSTER_SOURCE:-$(curl -s -m 5 -o /dev/null https://registry-1.docker.io/v2/ && echo registry || echo build)}
  case $CLUSTER_SOURCE in
    registry) return 0 ;;
    build) return 1 ;;
    *) die 64 "CLUSTER_SOURCE is '$CLUSTER_SOURCE': write registry (download) or build (from Debian packages and Go modules)" ;;
  esac
}

# Hosts that withhold CAP_SYS_RESOURCE (bit 24) refuse every privileged container, kind's nodes among them, unless runc asks for less.
withheld() { [ $((0x$(awk '/^CapBnd/ {print $2}' /proc/self/status) >> 24 & 1)) = 0 ]; }

as_root_on_debian() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# packages NAME…: install the Debian packages that are missing.
packages() {
  local name missing=()
  for name; do dpkg -s "$name" >/dev/null 2>&1 || missing+=("$name"); done
  [ ${#missing[@]} = 0 ] && return
  say "installing ${missing[*]} (Debian packages)"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return
  apt-get update -q >/dev/null 2>&1
  apt-get install -y -q --no-install-recommends "${missing[@]}" >"$cache/apt.log" 2>&1 ||
    die 1 "the packages ${missing[*]} could not be installed: see $cache/apt.log"
}

# A program in the cache is marked with its version, so that a changed pin makes it anew.
version_of() {
  case $1 in
    kube*) echo "$KUBERNETES" ;;
    argo | argoexec | workflow-controller) echo "$ARGO" ;;
    etcd) echo "$ETCD" ;;
    coredns) echo "$COREDNS" ;;
    pause) echo "$PAUSE" ;;
    kind) echo "$KIND" ;;
    helm) echo "$HELM" ;;
    *) die 64 "no version is pinned for '$1' in cluster/versions" ;;
  esac
}
have() { [ -x "$bin/$1" ] && [ "$(cat "$bin/.$1.version" 2>/dev/null)" = "$(version_of "$1")" ]; }
mark() { version_of "$1" >"$bin/.$1.version"; }
