#!/usr/bin/env bash
# Makes a release of what lies in build/bin: a tarball that runs on any x86-64 Linux with glibc 2.36 or later, and Debian
# packages. The same input gives the same bytes.
#
#   deploy/package.sh [--variant cpu|cuda] [--build DIR] [--out DIR] [--format tar|deb]...
#     --variant cuda  with libll_cuda.so and the CUDA libraries it uses (about 3 GB, and as much again under TMPDIR while it
#                     works); default: cpu
#     --build DIR     the build to take (default: build)
#     --out DIR       where the files go (default: build/release)
#     --format F      only this one; default: both
#
# Needs cmake, dpkg-dev and the Python environment that deploy/bootstrap.sh made. Writes into OUT:
#   ll-VERSION-linux-x86_64-VARIANT.tar.gz, ll-{client,coordinator,worker}_VERSION_amd64.deb, SHA256SUMS
# The CUDA variant's package of the worker has the version VERSION+cuda; the other two are the same in both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C TZ=UTC
umask 022

build=build out=build/release variant=cpu formats=()
die() { echo "package: error: $*" >&2; exit 1; }
while (($#)); do
  case $1 in
    --variant) variant=${2:?--variant needs cpu or cuda}; shift ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    --format) formats+=("${2:?--format needs tar or deb}"); shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "package: unknown option '$1' (see --help)" >&2; exit 2 ;;
  esac
  shift
done
((${#formats[@]})) || formats=(tar deb)
[[ $variant == cpu || $variant == cuda ]] || die "--variant: expected cpu or cuda, found $variant"
[[ -x $build/bin/ll-trainer && -x $build/bin/ll-coordinator ]] || die "no programs in $build/bin: build first"
[[ $variant == cpu || -e $build/bin/libll_cuda.so ]] || die "no libll_cuda.so in $build/bin: build on a host with nvcc"

version=$(sed -n 's/^project(ll VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || echo 0)}
site=$(realpath "$(dirname "$(ldd "$build/bin/ll-trainer" | sed -n 's/.*libtorch_cpu.so => \(.*\) (.*/\1/p')")/../..")
[[ -e $site/torch/lib/libtorch_cpu.so ]] || die "ll-trainer finds no LibTorch: run 'bash deploy/bootstrap.sh'"
mkdir -p "$out"
out=$(realpath "$out")
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

install_component() {  # install_component COMPONENT PREFIX
  DESTDIR='' cmake --install "$build" --component "$1" --prefix "$2" --strip > "$stage/install.log" 2>&1 ||
    { tail -n 5 "$stage/install.log" >&2; die "cmake --install failed"; }
  [[ $variant == cuda ]] || rm -f "$2/lib/ll/libll_cuda.so"
}

libraries_of() { ldd "$@" | sed -n 's/^.* => \(\/.*\) (0x.*/\1/p' | sort -u; }

# LibTorch, and what of CUDA's libraries it names or opens by itself, in one folder, as they came.
add_torch() {  # add_torch PREFIX
  local path programs=("$build/bin/ll-trainer") extra=()
  if [[ $variant == cuda ]]; then
    programs+=("$build/bin/libll_cuda.so")
    # Not torch_cuda_linalg with cuSOLVER: nothing here factorises a matrix.
    extra=("$site"/nvidia/cudnn/lib/libcudnn*.so.9 "$site"/nvidia/cu13/lib/libnvJitLink.so* "$site"/nvidia/cu13/lib/libnvrtc{,-builtins}.so*
           "$site"/torch/lib/libcaffe2_nvrtc.so)
  fi
  mkdir -p "$1/lib/ll"
  while read -r path; do
    if [[ $(realpath "$path") == "$site"/* ]]; then install -m 644 "$path" "$1/lib/ll/"; fi
  done < <(libraries_of "${programs[@]}"; printf '%s\n' "${extra[@]:+${extra[@]}}" | grep . || true)
  mkdir -p "$1/share/doc/ll/licenses"
  for path in "$site"/torch-*.dist-info "$site"/nvidia_*.dist-info; do
    [[ $variant == cuda || $path =~ /(torch|nvidia_cuda_(cupti|runtime))- ]] || continue
    local name
    name=$(basename "$path" .dist-info)
    # Most wheels have them in one folder, some beside their files.
    if [[ -d $path/licenses ]]; then
      cat "$path"/licenses/*
    else
      sed -n 's/^\([^,]*LICENSE[^,]*\),.*/\1/p' "$path/RECORD" | (cd "$site" && xargs --no-run-if-empty cat)
    fi > "$1/share/doc/ll/licenses/$name.txt"
    [[ -s $1/share/doc/ll/licenses/$name.txt ]] || die "no licence found of $name"
    echo "$name (Python wheel): licenses/$name.txt" >> "$1/share/doc/ll/THIRD_PARTY"
  done
}

# Empty when no package has the file. /lib is /usr/lib, but a package may know it by either name.
package_of() { { dpkg-query -S "$1" || dpkg-query -S "${1#/usr}" || true; } 2> /dev/null | sed -n '1s/:.*//p'; }

# The distribution's libraries that a bare system lacks: all but those of the C and C++ run-time.
add_system_libraries() {  # add_system_libraries PREFIX
  local path package
  while read -r path; do
    [[ $(realpath "$path") == "$site"/* ]] && continue
    package=$(package_of "$(realpath "$path")")
    [[ -n $package ]] || die "$path belongs to no package, so its licence is not known"
    case $package in libc6 | libstdc++6 | libgcc-s1) continue ;; esac
    install -m 644 "$path" "$1/lib/ll/"
    [[ -e $1/share/doc/ll/licenses/$package.txt ]] && continue
    install -m 644 "/usr/share/doc/$package/copyright" "$1/share/doc/ll/licenses/$package.txt"
    echo "$package $(dpkg-query -W -f '${Version}' "$package") (Debian): licenses/$package.txt" >> "$1/share/doc/ll/THIRD_PARTY"
  done < <(libraries_of "$build"/bin/{llctl,ll-data,ll-coordinator,ll-scaler,ll-worker,ll-trainer})
  # Parts of llctl, which draws with the font and has the others linked in; their licences came with the component.
  for package in fonts-dejavu-core libgrpc-dev libprotobuf-dev libabsl-dev libyaml-cpp-dev; do
    echo "$package $(dpkg-query -W -f '${Version}' "$package") (Debian): licenses/$package.txt" >> "$1/share/doc/ll/THIRD_PARTY"
  done
}

make_tarball() {
  local name=ll-$version-linux-x86_64-$variant component
  local tree=$stage/$name
  for component in client coordinator worker; do install_component "$component" "$tree"; done
  add_torch "$tree"
  add_system_libraries "$tree"
  sort -o "$tree/share/doc/ll/THIRD_PARTY" "$tree/share/doc/ll/THIRD_PARTY"
  install -m 644 LICENSE "$tree/share/doc/ll/"
  install -m 755 deploy/package/{install,uninstall}.sh "$tree/"
  (cd "$tree" && find . -type f -printf '%P\n' | sort | xargs sha256sum > "$stage/SHA256SUMS")
  mv "$stage/SHA256SUMS" "$tree/"
  tar -C "$stage" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -n -6 > "$out/$name.tar.gz"
  du -sm "$tree" | awk '{print "package: unpacked " $1 " MB"}' >&2
  rm -rf "$tree"
}

# In KiB, from the files' lengths: what du counts is the file system's affair and not the same every time.
installed_size() {  # installed_size TREE
  find "$1" -path "$1/DEBIAN" -prune -o -printf '%y %s\n' | awk '{n += $1 == "f" ? int(($2 + 1023) / 1024) : 1} END {print n}'
}

make_deb() {  # make_deb COMPONENT DESCRIPTION
  local tree=$stage/ll-$1 file depends version=$version
  [[ $1 != worker || $variant == cpu ]] || version+=+cuda
  mkdir -p "$tree/DEBIAN" "$stage/shlibdeps/debian" "$tree/usr/share/doc/ll-$1"
  install_component "$1" "$tree/usr"
  [[ $1 != worker ]] || add_torch "$tree/usr"
  if [[ -d $tree/usr/share/ll/config ]]; then
    mkdir -p "$tree/etc"
    mv "$tree/usr/share/ll/config" "$tree/etc/ll"
    rmdir --ignore-fail-on-non-empty "$tree/usr/share/ll"
    (cd "$tree" && find etc -type f -printf '/%p\n' | sort) > "$tree/DEBIAN/conffiles"
  fi
  cp LICENSE "$tree/usr/share/doc/ll-$1/copyright"
  [[ ! -d $tree/usr/share/doc/ll ]] || mv "$tree/usr/share/doc/ll"/* "$tree/usr/share/doc/ll-$1/"
  rmdir "$tree/usr/share/doc/ll" 2> /dev/null || true
  printf 'Source: ll\nPackage: ll-%s\nArchitecture: amd64\n' "$1" > "$stage/shlibdeps/debian/control"
  depends=$(cd "$stage/shlibdeps" && dpkg-shlibdeps -O --ignore-missing-info -x"ll-$1" "$tree"/usr/bin/* 2> "$stage/shlibdeps.log" |
    sed -n 's/^shlibs:Depends=//p') || { tail -n 5 "$stage/shlibdeps.log" >&2; die "dpkg-shlibdeps failed"; }
  [[ $1 == client ]] || depends="$depends, systemd | systemd-standalone-sysusers"
  cat > "$tree/DEBIAN/control" << END
Package: ll-$1
Version: $version
Architecture: amd64
Maintainer: The ll authors <ll@localhost>
Section: science
Priority: optional
Installed-Size: $(installed_size "$tree")
Depends: $depends
Description: $2
END
  if [[ $1 != client ]]; then
    for file in postinst prerm postrm; do
      sed "s/@DAEMON@/$1/g" "deploy/package/deb.$file" > "$tree/DEBIAN/$file"
      chmod 755 "$tree/DEBIAN/$file"
    done
  fi
  dpkg-deb --root-owner-group -Zgzip -z6 --build "$tree" "$out/ll-$1_${version}_amd64.deb" > /dev/null
  rm -rf "$tree"
}

for format in "${formats[@]}"; do
  case $format in
    tar) make_tarball ;;
    deb)
      make_deb client "llctl: submit and follow long-context fine-tuning jobs"
      make_deb coordinator "coordinator of the LongLoRA training service"
      make_deb worker "agent and trainer of the LongLoRA training service, with LibTorch ($variant)"
      ;;
    *) die "--format: expected tar or deb, found $format" ;;
  esac
done
(cd "$out" && find . -maxdepth 1 -type f \( -name '*.tar.gz' -o -name '*.deb' \) -printf '%P\n' | sort | xargs sha256sum > SHA256SUMS)
(shopt -s nullglob; cd "$out" && du -m -- *.tar.gz *.deb | awk '{print "package: " $1 " MB " $2}') >&2
