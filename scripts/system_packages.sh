#!/bin/sh
# Install the named Debian packages that are missing: as root with apt, else say the exact command.
set -eu
missing=""
for package in "$@"; do
    case "$package" in
        bubblewrap) program=bwrap ;;
        rabbitmq-server) program=/usr/sbin/rabbitmq-server ;; # not on everybody's PATH
        nginx) program=/usr/sbin/nginx ;;
        lib*) # a library is there when the loader knows it: libpango-1.0-0 is libpango-1.0.so.0
            library=$(echo "$package" | sed 's/-\{0,1\}[0-9]*$//')
            PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q "$library\.so" || missing="$missing $package"
            continue ;;
        *) program=$package ;;
    esac
    command -v "$program" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # The tests start servers of their own: what is installed shall not start any.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "The tests need$missing. Install with: sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
