#!/bin/sh
# Takes away what install.sh installed.
#
#   PREFIX/uninstall.sh [--purge]
#     --purge   also /etc/ll, /var/lib/ll (the store and the jobs of this host) and the user
set -eu
purge=0
case ${1:-} in
  '') ;;
  --purge) purge=1 ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
  *) echo "uninstall: unknown argument '$1' (see --help)" >&2; exit 2 ;;
esac
prefix=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "uninstall: run as root" >&2; exit 1; }
[ -x "$prefix/bin/ll-coordinator" ] || { echo "uninstall: no release in $prefix" >&2; exit 1; }

for unit in ll-worker ll-coordinator; do
  if [ -d /run/systemd/system ]; then systemctl disable --now "$unit" 2> /dev/null || true; fi
  rm -f "/etc/systemd/system/$unit.service" "/etc/systemd/system/multi-user.target.wants/$unit.service"
done
[ ! -d /run/systemd/system ] || systemctl daemon-reload
# Exactly the files that came with the release, and the folders that are empty then.
cd "$prefix"
sed 's/^[0-9a-f]*  //' SHA256SUMS | while IFS= read -r file; do rm -f "./$file"; done
rm -f SHA256SUMS
for folder in bin lib share .; do find "./$folder" -depth -type d -empty -delete 2> /dev/null || true; done
cd /
rmdir "$prefix" 2> /dev/null || true
if [ "$purge" = 1 ]; then
  rm -rf /etc/ll /var/lib/ll
  ! id ll > /dev/null 2>&1 || userdel ll
  if getent group ll > /dev/null; then groupdel ll; fi
fi
