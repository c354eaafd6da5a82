# Mining, by the test's own miner and pool: the packages of others are for a whole coin.
# shellcheck shell=bash disable=SC2154

mine() { # DIALECT
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p agent-monitor-tests --bin miner --bin pool --locked
    serve 3333 "$root/target/debug/pool" --listen "$server:3333"
    in_agent "$root/target/debug/miner" --pool "$server:3333" --dialect "$1" --shares 3 >/dev/null
}
stratum_monero() { mine monero; }
stratum_bitcoin() { mine bitcoin; }
