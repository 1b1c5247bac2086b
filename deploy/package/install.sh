#!/bin/sh
# Installs this release: programs, units, configuration. Run it as root in the unpacked folder.
#
#   ./install.sh [--prefix DIR] [--replace] [coordinator] [worker]
#     --prefix DIR          default: /opt/ll
#     --replace             takes the place of the release in PREFIX, an older or a newer one, while its daemons run
#     coordinator, worker   the daemons whose units are installed; default: both, with --replace those that are there
#
# Nothing is started or stopped: look at /etc/ll/*.yaml first, then `systemctl enable --now ll-coordinator ll-worker`; after
# --replace `systemctl restart ll-coordinator`, `systemctl reload ll-worker`.
# Configuration that is there already stays. PREFIX/uninstall.sh takes everything away again.
set -eu
cd "$(dirname "$0")"
prefix=/opt/ll
daemons=
replace=0
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) prefix=${2:?--prefix needs a folder}; shift ;;
    --replace) replace=1 ;;
    coordinator | worker) daemons="$daemons $1" ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    *) echo "install: unknown argument '$1' (see --help)" >&2; exit 2 ;;
  esac
  shift
done
case $prefix in /*) ;; *) echo "install: --prefix: expected an absolute path, found $prefix" >&2; exit 2 ;; esac
[ "$(id -u)" = 0 ] || { echo "install: run as root" >&2; exit 1; }
[ "$(pwd -P)" != "$(cd "$prefix" 2> /dev/null && pwd -P)" ] || { echo "install: run the install.sh of the unpacked release, not that of $prefix" >&2; exit 1; }
if [ "$replace" = 1 ]; then
  [ -x "$prefix/uninstall.sh" ] || { echo "install: --replace: expected a release in $prefix, found none" >&2; exit 1; }
elif [ -x "$prefix/uninstall.sh" ]; then
  echo "install: $prefix holds a release; give --replace to take its place while jobs run, or run $prefix/uninstall.sh first (it keeps jobs and configuration)" >&2
  exit 1
else
  [ -z "$(ls -A "$prefix" 2> /dev/null)" ] || { echo "install: --prefix: expected a new or empty folder, found files in $prefix" >&2; exit 1; }
fi
sha256sum --quiet -c SHA256SUMS || { echo "install: this folder is damaged; unpack the release again" >&2; exit 1; }
machine=$(uname -m)
[ "$machine" = x86_64 ] || { echo "install: expected x86_64, found $machine" >&2; exit 1; }

# One file after the other takes its place by a rename: what runs keeps the file that it has open, and a program that starts
# meanwhile finds a whole one. What only the release of before had goes last, and its list with it: a run that was cut off is
# made good by another one.
put_in_place() {
  sed 's/^[0-9a-f]*  //' SHA256SUMS | while IFS= read -r file; do
    mkdir -p "$prefix/$(dirname "$file")"
    cp "$file" "$prefix/$file.new"
    mv -f "$prefix/$file.new" "$prefix/$file"
  done
  sed 's/^[0-9a-f]*  //' "$prefix/SHA256SUMS" | while IFS= read -r file; do
    [ -e "$file" ] || rm -f "${prefix:?}/$file"
  done
  cp SHA256SUMS "$prefix/SHA256SUMS.new"
  mv -f "$prefix/SHA256SUMS.new" "$prefix/SHA256SUMS"
  for folder in bin lib share; do find "$prefix/$folder" -depth -type d -empty -delete; done
}

mkdir -p "$prefix" /etc/ll
if [ "$replace" = 1 ]; then
  put_in_place
  for daemon in coordinator worker; do
    [ ! -e "/etc/systemd/system/ll-$daemon.service" ] || daemons="$daemons $daemon"
  done
else
  cp -R bin lib share install.sh uninstall.sh SHA256SUMS "$prefix/"
  daemons=${daemons:-coordinator worker}
fi
for daemon in $daemons; do
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
if [ "$replace" = 1 ]; then
  echo "install: done in $prefix; the daemons run as before. Next: systemctl restart ll-coordinator, systemctl reload ll-worker"
  exit 0
fi
echo "install: done in $prefix. Next: /etc/ll/*.yaml, then systemctl enable --now ll-coordinator ll-worker"
