#!/bin/sh
# Prints where a Chromium or Chrome for tests/test_browser.py is; installs one where there is none.
# Playwright's own is tried first, then the package of Debian or Ubuntu (as root, or where sudo asks for no password).
#   sh scripts/chromium.sh [PYTHON]    the interpreter that has Playwright; otherwise that of .venv/
set -eu
python=${1:-$(dirname "$0")/../.venv/bin/python}

on_path() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" && return
    done
    return 1
}

playwrights() {
    found=$("$python" - <<'end'
from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
end
    )
    "$found" --version >/dev/null 2>&1 && echo "$found"  # one that lacks the system's libraries doesn't start
}

on_path && exit
playwrights && exit

echo 'No Chromium or Chrome was found: installing one (a few hundred MB) ...' >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$python" -m playwright install chromium >"$log" 2>&1 && playwrights && exit
if command -v apt-get >/dev/null; then
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root='sudo -n'
    { $as_root apt-get update && DEBIAN_FRONTEND=noninteractive $as_root apt-get install --yes chromium; } >>"$log" 2>&1 &&
        on_path && exit
fi
tail -n 5 "$log" >&2
echo 'No browser could be installed (see above): install Chromium or Chrome, then try again.' >&2
exit 1
