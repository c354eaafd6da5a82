# What several scenarios need.
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
inside_web() { inside_web_at 127.0.0.1; }
inside_web_at() { # ADDRESS
    mkdir -p "$work/web"
    head -c 3000 /dev/zero | tr '\0' x >"$work/web/index.html"
    serve_inside 8000 python3 -m http.server --protocol HTTP/1.1 --bind "$1" --directory "$work/web" 8000
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
