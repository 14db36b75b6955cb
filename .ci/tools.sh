# For scripts to source: the folder of the tools, and how to install a tool.

# Other users than root can read it, because PostgreSQL does not run as root.
tools=${RECONCILER_TEST_TOOLS:-$(dirname "$(mktemp -u)")/salla-reconciler-tools-$(id -u)}
export RECONCILER_TEST_TOOLS=$tools
mkdir -p "$tools"
# The tools there are executed, so the folder must belong to this user.
[ -O "$tools" ] || { echo "$0: $tools belongs to somebody else: remove it, or name another in RECONCILER_TEST_TOOLS" >&2; exit 1; }
chmod 755 "$tools"

missing() { # what, how to get it
  echo "$0: $1 is missing: $2" >&2
  exit 1
}

install_debian() { # packages
  command -v apt-get >/dev/null || missing "$*" "install it with the package manager of this system"
  [ "$(id -u)" = 0 ] || missing "$*" "run: sudo apt-get install $*"
  if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >"$tools/apt.log" 2>&1; then
    tail -n 20 "$tools/apt.log" >&2
    missing "$*" "apt-get install $* failed, see above"
  fi
}

# Installs packages of Python into "$tools/NAME", unless these versions are there.
get_venv() { # name, packages
  local name=$1
  shift
  [ "$(cat "$tools/$name/version" 2>/dev/null)" = "$*" ] && return
  command -v python3 >/dev/null || missing python3 "install it with its venv module: apt-get install python3-venv"
  rm -rf "${tools:?}/$name"
  python3 -m venv "$tools/$name" >"$tools/venv.log" 2>&1 ||
    missing "the venv module of python3" "apt-get install python3-venv; $tools/venv.log tells more"
  "$tools/$name/bin/pip" install --quiet --disable-pip-version-check "$@" >"$tools/pip.log" 2>&1 ||
    missing "$name" "pip install $* failed; $tools/pip.log tells more"
  echo "$*" >"$tools/$name/version"
}
