# Mining: real programs with a pool of the test's own, and its own miner.
# shellcheck shell=bash disable=SC2154

pool() { # OPTIONS…
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p agent-monitor-tests --bin miner --bin pool --locked
    serve 3333 "$root/target/debug/pool" --listen "$server:3333" "$@"
}
mine() { # DIALECT
    pool
    in_agent "$root/target/debug/miner" --pool "$server:3333" --dialect "$1" --shares 3 >/dev/null
}
stratum_monero() { mine monero; }
stratum_bitcoin() { mine bitcoin; }

# A second or two of one thread's work: a share in five hundred hashes of an algorithm
# that needs half a megabyte. As nobody, so that it cannot set what XMRig sets as root.
xmrig_with() { # OPTIONS…
    pool --algo argon2/chukwa --target 26318300
    start_xmrig -p x -a argon2/chukwa "$@"
    until_ok enough_shares
}
start_xmrig() { # OPTIONS…
    chmod 711 "$work"
    install -m 755 "$tools/bin/xmrig" "$work/xmrig"
    serve_inside - env -i -C / setpriv --reuid=65534 --regid=65534 --clear-groups "$work/xmrig" \
        -u "$wallet" -t 1 --no-color "$@"
}
enough_shares() { [ "$(grep -c '^share accepted' "$work/servers")" -ge 3 ]; }
# A Monero address, with the check sum that XMRig looks at before it asks a node. Both its
# keys are the curve's base point, so that everybody knows the secret ones.
wallet=44yQXfkWZNmJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmJ7suhUXwdrDJ8QgRfFWTzmJ8QgRfFWTzmJ8QgRfFWTzmCYrSgjJ

xmrig() { xmrig_with -o "$server:3333"; }
xmrig_socks5() {
    serve 1080 microsocks -i "$server" -p 1080
    xmrig_with -o "$server:3333" -x "$server:1080"
}
xmrig_tls() {
    local dir=$work/tls
    mkdir -p "$dir"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/key" -out "$dir/cert" -days 2 \
        -subj /CN=pool.example.net 2>/dev/null
    cat "$dir/key" "$dir/cert" >"$dir/both"
    printf 'foreground = yes\npid =\n[s]\naccept = %s:443\nconnect = %s:3333\ncert = %s\n' \
        "$server" "$server" "$dir/both" >"$dir/server"
    serve 443 stunnel "$dir/server"
    xmrig_with -o "$server:443" --tls
}
# With a node instead of a pool, whose work it finds to be too short.
xmrig_daemon() {
    serve 18081 python3 "$here/monero_node.py" "$server" 18081
    start_xmrig --daemon --coin monero -o "$server:18081"
    until_ok grep -q 'POST /json_rpc' "$work/servers"
    sleep 2
}
coinhive() {
    pool
    serve 8080 env NODE_PATH="$npm" node "$here/coinhive_proxy.js" "$server" 8080 "$server" 3333
    in_agent env NODE_PATH="$npm" node "$here/coinhive_miner.js" "ws://$server:8080/proxy" 3
}
stratum_v2() {
    local built=$tools/stratum-v2
    CARGO_TARGET_DIR=$built cargo build --quiet --locked --manifest-path "$here/stratum-v2/Cargo.toml"
    serve 3336 "$built/debug/stratum-v2" pool "$server:3336"
    in_agent "$built/debug/stratum-v2" mine "$server:3336" 3 >/dev/null
}
