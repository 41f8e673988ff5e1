#!/bin/sh
# Installs what the tests need and a fresh machine lacks: MariaDB's server and, unpacked into a cache, MySQL 9's.
# Says what it does; does nothing when everything is there.
set -eu

say() { printf '%s\n' "provision: $*"; }

# Runs a command as root, directly or by sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    say "installing Debian packages:$missing"
    as_root apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
}

# The mirror that this machine itself uses.
mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)*\([^ ]*\).*/\2/p' |
        grep -v security | head -n 1
}

cache=${AUTOBUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/autobuild}
mysql=$cache/mysql

unpack_mysql() {
    [ -e "$mysql/.complete" ] && return 0
    install_packages mmdebstrap
    say "unpacking MySQL from Debian unstable into $mysql (about 400 MB, once)"
    mkdir -p "$cache"
    rm -rf "$mysql"
    # A mirror's signature may be past its date.
    mmdebstrap --quiet --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
        --include=mysql-server-core,mysql-client-core sid "$mysql" "$(mirror)"
    touch "$mysql/.complete"
}

if [ -z "${DATABASE_URL:-}" ]; then
    install_packages mariadb-server-core mariadb-client-core
    unpack_mysql
fi
