#!/usr/bin/env bash
# Makes a Debian 12 machine ready to build ll: Debian packages, and a pinned Python environment that holds LibTorch.
# Says what it does, does nothing twice, and is silent when there is nothing to do.
#
#   deploy/bootstrap.sh [--tests] [--venv-only]
#     --tests       also what the tests need (style tools; the Python packages that numbers are compared with)
#     --venv-only   leave system packages alone: for another system, where you install their counterparts yourself
#
# The environment lies in ${XDG_CACHE_HOME:-~/.cache}/ll/venv-HASH, where HASH is of requirements.lock, so that clones
# share it; build/venv points there. The tests' packages are added to it: another requirements-tests.lock changes them in
# place, and the compiler cache stays good. LL_CACHE_DIR replaces ${XDG_CACHE_HOME:-~/.cache}/ll.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  build-essential cmake ninja-build ccache mold git pkg-config python3-venv ca-certificates  # tools
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler libabsl-dev         # RPC
  libspdlog-dev prometheus-cpp-dev libcivetweb-dev                                           # log, metrics, HTTP
  libcli11-dev nlohmann-json3-dev libyaml-cpp-dev libsqlite3-dev libpq-dev libssl-dev        # flags, formats, stores
  libsentencepiece-dev libpcre2-dev libicu-dev                                               # tokenizers
  zlib1g-dev libzstd-dev                                                                     # compressed data
  libcurl4-openssl-dev libpugixml-dev                                                        # object stores
  libfreetype-dev libpng-dev fonts-dejavu-core                                               # pictures of curves
  tzdata                                                                                     # schedules
  libgloo-dev                                                                                # headers for c10d's Gloo
  libgtest-dev libgmock-dev libbenchmark-dev                                                 # unit tests
  openssl curl bible-kjv bible-kjv-text                                                      # tests and demo
)
test_packages=(
  clang-format clang-tidy clang-14 libclang-rt-14-dev llvm-14  # style; fuzzing, with its run-time and symbolizer
  prometheus                                                   # promtool; the tests scrape with a server of their own
  zsh fish                                                     # whose completion is tested, beside bash's
  iproute2                                                     # hosts as network namespaces
  faketime                                                     # processes whose clock is wrong
  postgresql-15                                                # the store of several coordinators; no cluster of it is used
)
disk_needed_gb=8  # the wheels unpack to 4.6 GB beside pip's copies

say() { echo "bootstrap: $*" >&2; }
die() { say "error: $*"; exit 1; }

with_tests=0
with_packages=1
for argument in "$@"; do
  case $argument in
    --tests) with_tests=1 ;;
    --venv-only) with_packages=0 ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) say "unknown option '$argument' (see --help)"; exit 2 ;;
  esac
done

require_debian_12() {
  local id=unknown version='' pretty=''
  if [[ -r /etc/os-release ]]; then
    # shellcheck disable=SC1091
    id=$(. /etc/os-release && echo "${ID:-unknown}")
    version=$(. /etc/os-release && echo "${VERSION_ID:-}")
    pretty=$(. /etc/os-release && echo "${PRETTY_NAME:-}")
  fi
  [[ $id == debian && $version == 12 ]] && return
  die "expected Debian 12, found ${pretty:-$id $version}. On another system install the counterparts of these" \
    "packages and run 'bash deploy/bootstrap.sh --venv-only' with Python 3.11: ${packages[*]}"
}

missing_packages() {
  local wanted=("${packages[@]}") installed
  ((with_tests)) && wanted+=("${test_packages[@]}")
  # dpkg-query fails when one of the names is unknown to it; those are exactly the missing ones.
  installed=$(dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' "${wanted[@]}" 2> /dev/null | sed -n 's/^ii *//p' || true)
  comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) <(sort -u <<< "$installed")
}

# A package with a daemon starts it at once, on every interface; what a test needs must not. Uses install_packages' root.
keep_services_from_starting() {
  local policy=/usr/sbin/policy-rc.d
  [[ ! -e $policy ]] || return 0  # this machine has its own rule
  printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" > /dev/null
  "${root[@]}" chmod 755 "$policy"
  # shellcheck disable=SC2064
  trap "${root[*]} rm -f $policy" EXIT
}

install_packages() {
  local missing log root=()
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    command -v sudo > /dev/null || die "not root and no sudo. As root: apt-get install ${missing[*]}"
    root=(sudo)
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  log=$(mktemp)
  local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  [[ " ${missing[*]} " != *" prometheus "* ]] || keep_services_from_starting
  if ! "${apt[@]}" update < /dev/null > "$log" 2>&1 ||
     ! "${apt[@]}" install --no-install-recommends "${missing[@]}" < /dev/null >> "$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "apt-get failed (whole output: $log)"
  fi
  # Nor at the next boot; 'update-rc.d prometheus enable' takes it back.
  [[ " ${missing[*]} " != *" prometheus "* ]] || "${root[@]}" update-rc.d prometheus disable >> "$log" 2>&1 || true
  rm -f "$log"
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]} == 0)) || die "still missing after apt-get: ${missing[*]}"
}

# The interpreter that the Debian packages belong to, also where another python3 comes first in PATH.
find_python() {
  local python
  for python in /usr/bin/python3 /usr/bin/python3.11 "$(command -v python3.11 || true)" "$(command -v python3 || true)"; do
    if [[ -x $python ]] && "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null; then
      echo "$python"
      return
    fi
  done
  die "expected Python 3.11 with the venv module, found $(python3 --version 2>&1 || echo none)"
}

pip_install() {  # pip_install VENV LOCK: exactly the lock's versions and nothing beside them
  local log=$1/install.log
  if ! PYTHONNOUSERSITE=1 PIP_USER=0 "$1/bin/python" -m pip install -q --disable-pip-version-check --no-input --no-deps \
      -r "$2" < /dev/null > "$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "pip failed (whole output: $log)"
  fi
}

tests_installed() {  # tests_installed VENV HASH
  [[ -e $1/complete-tests && $(< "$1/complete-tests") == "$2" ]]
}

install_venv() {
  [[ -n ${LL_CACHE_DIR:-}${XDG_CACHE_HOME:-}${HOME:-} ]] || die "set HOME, XDG_CACHE_HOME or LL_CACHE_DIR"
  local cache=${LL_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/ll} venv tests_hash
  venv=$cache/venv-$(sha256sum < deploy/requirements.lock | cut -c1-12)
  tests_hash=$(sha256sum < deploy/requirements-tests.lock | cut -c1-12)
  # The stamps are written last: an environment without them is half made and is not used.
  if [[ ! -e $venv/complete ]] || { ((with_tests)) && ! tests_installed "$venv" "$tests_hash"; }; then
    mkdir -p "$cache"
    exec {lock}> "$venv.lock"
    flock -w 1800 "$lock" || die "another bootstrap has held $venv.lock for 30 minutes"
    if [[ ! -e $venv/complete ]]; then
      local python free_gb
      python=$(find_python)
      free_gb=$(($(df --output=avail -k "$cache" | tail -n 1) / 1000000))
      ((free_gb >= disk_needed_gb)) || die "expected $disk_needed_gb GB free in $cache, found $free_gb GB; LL_CACHE_DIR names another place"
      say "making the Python environment $venv (4.6 GB, about a minute)"
      rm -rf "$venv"
      "$python" -m venv "$venv"
      pip_install "$venv" deploy/requirements.lock
      touch "$venv/complete"
    fi
    if ((with_tests)) && ! tests_installed "$venv" "$tests_hash"; then
      say "adding the tests' Python packages to $venv"
      rm -f "$venv/complete-tests"
      pip_install "$venv" deploy/requirements-tests.lock
      echo "$tests_hash" > "$venv/complete-tests"
    fi
    flock -u "$lock"
  fi
  mkdir -p build
  [[ $(readlink build/venv || true) == "$venv" ]] || ln -sfn "$venv" build/venv
}

if ((with_packages)); then
  require_debian_12
  install_packages
fi
install_venv
