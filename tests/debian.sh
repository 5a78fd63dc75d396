# For scripts that need Debian packages: names all that are missing in one line, or installs them.
# shellcheck shell=bash

# need PACKAGE TEST…: the package is wanted, and the test passes where it is there.
wanted=()
need() {
  wanted+=("$(printf '%q ' "$@")")
}

# Prints the wanted packages whose tests fail.
missing_packages() {
  local line package
  for line in "${wanted[@]}"; do
    eval "set -- $line"
    package=$1
    shift
    "$@" >/dev/null 2>&1 || printf '%s\n' "$package"
  done | sort -u | tr '\n' ' '
}

# Installs what is missing where this runs as root; ends with one line where something still is.
settle_packages() {
  local missing
  missing=$(missing_packages)
  missing=${missing% }
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" = 0 ] && [ -z "${MSP_NO_INSTALL:-}" ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get install -y --no-install-recommends $missing ||
      { apt-get update && apt-get install -y --no-install-recommends $missing; }; } >/dev/null 2>&1 || true
    missing=$(missing_packages)
    missing=${missing% }
    [ -n "$missing" ] || return 0
  fi
  die "needs these Debian packages; as root: apt-get install $missing"
}
