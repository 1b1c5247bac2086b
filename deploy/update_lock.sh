#!/usr/bin/env bash
# Makes requirements.lock and requirements-tests.lock anew from requirements.txt and requirements-tests.txt.
# Run it after changing one of those; it resolves versions and installs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
python=../build/venv/bin/python
[[ -x $python ]] || { echo "update_lock: run 'bash deploy/bootstrap.sh' first" >&2; exit 1; }
report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT

resolve() {  # resolve OUT REQUIREMENTS... : a pip report of everything that an empty environment would get
  local out=$1 arguments=() file
  shift
  for file in "$@"; do arguments+=(-r "$file"); done
  "$python" -m pip install -q --disable-pip-version-check --dry-run --ignore-installed --report "$out" \
    "${arguments[@]}" > "$report/pip.log" 2>&1 || { cat "$report/pip.log" >&2; exit 1; }
}
resolve "$report/runtime.json" requirements.txt
resolve "$report/tests.json" requirements.txt requirements-tests.txt
"$python" - "$report" <<'PY'
import json, sys

def versions(path):
    return {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"]
            for item in json.load(open(path))["install"]}

def write(path, source, pins):
    with open(path, "w") as out:
        out.write(f"# Written by update_lock.sh from {source}. Do not edit.\n")
        out.writelines(f"{name}=={version}\n" for name, version in sorted(pins.items()))

runtime, everything = (versions(f"{sys.argv[1]}/{name}.json") for name in ("runtime", "tests"))
moved = {name for name in runtime if everything.get(name) != runtime[name]}
if moved:
    sys.exit(f"update_lock: the tests want other versions of {sorted(moved)} than the runtime part")
write("requirements.lock", "requirements.txt", runtime)
write("requirements-tests.lock", "requirements-tests.txt",
      {name: version for name, version in everything.items() if name not in runtime})
PY
