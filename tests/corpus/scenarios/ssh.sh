# SSH, by itself and inside other protocols.
# shellcheck shell=bash disable=SC2154

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
asyncssh_with() { # COMPRESSION
    sshd
    inside_web
    serve_inside - /usr/bin/python3 "$here/asyncssh_reverse.py" "$server" "$work/ssh/key" "$1"
    visit
}
asyncssh_reverse() { asyncssh_with none; }
asyncssh_compressed() { asyncssh_with default; }
# A proxy of the server's network that lets CONNECT through to port 22.
http_proxy() {
    printf 'Port 8888\nListen %s\nTimeout 60\nLogLevel Error\nConnectPort 22\n' "$server" >"$work/tinyproxy"
    serve 8888 tinyproxy -d -c "$work/tinyproxy"
}
ssh_through_http_connect() {
    sshd
    inside_web
    http_proxy
    as_ssh -N -o "ProxyCommand=nc -X connect -x $server:8888 %h %p" -R 9000:127.0.0.1:8000 "root@$server" &
    visit
}
ssh_through_corkscrew() {
    sshd
    http_proxy
    as_ssh -o "ProxyCommand=corkscrew $server 8888 %h %p" "root@$server" uname -a >/dev/null
}
ssh_through_wstunnel() {
    sshd
    inside_web
    serve 8080 node "$npm/wstunnel/bin/wstt.js" -s "$server:8080"
    serve_inside 2222 node "$npm/wstunnel/bin/wstt.js" -t 2222:127.0.0.1:22 "ws://$server:8080"
    as_ssh -p 2222 -N -R 9000:127.0.0.1:8000 root@127.0.0.1 &
    visit
}
sshuttle_vpn() {
    sshd
    # What only the server reaches.
    ip -n corpus-server address add 198.51.100.9/32 dev lo
    serve 8000 python3 -m http.server --bind 198.51.100.9 --directory "$here" 8000
    ip -n corpus-agent route add 198.51.100.0/24 via "$server"
    serve_inside - sshuttle --method nft -e "ssh $(ssh_options)" -r "root@$server" 198.51.100.0/24
    until_ok in_agent sh -c 'nft list tables | grep -q sshuttle'
    for _ in 1 2 3; do
        in_agent curl -sS -o /dev/null http://198.51.100.9:8000/make
    done
}
