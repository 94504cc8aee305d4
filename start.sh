#!/bin/sh
# Installs and builds what is missing or out of date, then starts l3cap.
#   ./start.sh                  captures what config/default.json names, into ./vault
#   ./start.sh demo             captures 30 s from a simulated exchange and shows the files; needs no network
#   ./start.sh COMMAND ...      any l3cap command: ./start.sh rebuild --vault ./vault --out ./again
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if ! command -v node >/dev/null 2>&1; then
  echo 'l3cap needs Node.js 20.19 or newer, and there is no "node" here: install it from https://nodejs.org' >&2
  exit 1
fi
if ! node -e 'var v = process.versions.node.split("."); process.exit(v[0] > 20 || (v[0] == 20 && v[1] >= 19) ? 0 : 1)'; then
  echo "l3cap needs Node.js 20.19 or newer, and this is $(node --version): get a newer one from https://nodejs.org" >&2
  exit 1
fi

# Stale when the mark is missing or anything under the other paths is newer.
stale() {
  mark=$1
  shift
  [ ! -e "$mark" ] || [ -n "$(find "$@" -newer "$mark")" ]
}

# What npm and tsc say goes to stderr: stdout belongs to the command.
cd -- "$here"
if stale node_modules/.package-lock.json package-lock.json; then
  echo 'Installing l3cap: npm ci' >&2
  npm ci --include=dev --no-audit --no-fund >&2
fi
if stale dist/cli.js src tsconfig.json; then
  echo 'Building l3cap: npm run build' >&2
  npm run build >&2
fi
cd -- "$OLDPWD"

case "${1-}" in
  '') exec node "$here/bin/l3cap.js" run --config "$here/config/default.json" ;;
  demo)
    shift
    exec node "$here/bin/demo.js" "$@"
    ;;
  *) exec node "$here/bin/l3cap.js" "$@" ;;
esac
