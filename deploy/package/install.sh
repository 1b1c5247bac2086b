#!/bin/sh
# Installs this release: programs, units, configuration. Run it as root in the unpacked folder.
#
#   ./install.sh [--prefix DIR] [coordinator] [worker]
#     --prefix DIR          default: /opt/ll
#     coordinator, worker   the daemons whose units are installed; default: both
#
# Nothing is started: look at /etc/ll/*.yaml first, then `systemctl enable --now ll-coordinator ll-worker`.
# Configuration that is there already stays. PREFIX/uninstall.sh takes everything away again.
set -eu
cd "$(dirname "$0")"
prefix=/opt/ll
daemons=
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) prefix=${2:?--prefix needs a folder}; shift ;;
    coordinator | worker) daemons="$daemons $1" ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    *) echo "install: unknown argument '$1' (see --help)" >&2; exit 2 ;;
  esac
  shift
done
case $prefix in /*) ;; *) echo "install: --prefix: expected an absolute path, found $prefix" >&2; exit 2 ;; esac
[ "$(id -u)" = 0 ] || { echo "install: run as root" >&2; exit 1; }
if [ -x "$prefix/uninstall.sh" ]; then
  echo "install: $prefix holds a release; run $prefix/uninstall.sh first (it keeps jobs and configuration)" >&2
  exit 1
fi
[ -z "$(ls -A "$prefix" 2> /dev/null)" ] || { echo "install: --prefix: expected a new or empty folder, found files in $prefix" >&2; exit 1; }
sha256sum --quiet -c SHA256SUMS || { echo "install: this folder is damaged; unpack the release again" >&2; exit 1; }
machine=$(uname -m)
[ "$machine" = x86_64 ] || { echo "install: expected x86_64, found $machine" >&2; exit 1; }

mkdir -p "$prefix" /etc/ll
cp -R bin lib share install.sh uninstall.sh SHA256SUMS "$prefix/"
for daemon in ${daemons:-coordinator worker}; do
  [ -e "/etc/ll/$daemon.yaml" ] || cp "share/ll/config/$daemon.yaml" /etc/ll/
  if [ -d /etc/systemd ]; then
    mkdir -p /etc/systemd/system
    sed "s|/usr/bin/|$prefix/bin/|" "lib/systemd/system/ll-$daemon.service" > "/etc/systemd/system/ll-$daemon.service"
  fi
done
if ! id ll > /dev/null 2>&1; then
  if command -v systemd-sysusers > /dev/null; then
    systemd-sysusers "$prefix/lib/sysusers.d/ll-coordinator.conf"
  else
    useradd --system --home-dir /var/lib/ll --shell /usr/sbin/nologin --comment "LongLoRA training service" ll
  fi
fi
[ ! -d /run/systemd/system ] || systemctl daemon-reload
"$prefix/bin/llctl" completion bash > /dev/null || { echo "install: $prefix/bin/llctl does not run here" >&2; exit 1; }
echo "install: done in $prefix. Next: /etc/ll/*.yaml, then systemctl enable --now ll-coordinator ll-worker"
