# What agents do all day, on which nothing may be raised.
# shellcheck shell=bash disable=SC2154

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
git_https() {
    local dir=$work/git
    mkdir -p "$dir"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$dir/key" -out "$dir/cert" -days 2 \
        -subj /CN=git.example.net 2>/dev/null
    git init -q --bare "$dir/repository.git"
    git -C "$dir/repository.git" config http.receivepack true
    serve 443 python3 "$here/git_https_server.py" "$server" "$dir"
    as_git() {
        in_agent env -i PATH="$PATH" HOME="$dir" GIT_CONFIG_NOSYSTEM=1 git -c http.sslVerify=false \
            -c "http.curloptResolve=git.example.net:443:$server" -c user.name=x -c user.email=x@example.net "$@"
    }
    as_git clone -q https://git.example.net/repository.git "$dir/clone" 2>/dev/null
    head -c 20000 /dev/urandom >"$dir/clone/file"
    as_git -C "$dir/clone" add file
    as_git -C "$dir/clone" commit -qm 'a file'
    as_git -C "$dir/clone" push -q origin HEAD
    as_git clone -q https://git.example.net/repository.git "$dir/other"
}
npm_install() {
    local dir=$work/npm
    mkdir -p "$dir/package" "$dir/registry/tarballs" "$dir/project"
    printf '{"name": "harmless", "version": "1.0.0", "main": "index.js"}\n' >"$dir/package/package.json"
    echo 'module.exports = 1' >"$dir/package/index.js"
    local tarball=harmless-1.0.0.tgz
    tar -C "$dir" -czf "$dir/registry/tarballs/$tarball" package
    printf '{"name": "harmless", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "harmless",
        "version": "1.0.0", "dist": {"tarball": "http://%s:8000/tarballs/%s", "integrity": "sha512-%s"}}}}\n' \
        "$server" $tarball "$(openssl dgst -sha512 -binary "$dir/registry/tarballs/$tarball" | base64 -w0)" \
        >"$dir/registry/harmless"
    serve 8000 python3 -m http.server --bind "$server" --directory "$dir/registry" 8000
    in_agent env -i -C "$dir/project" PATH="$PATH" HOME="$dir" npm install --silent --no-audit --no-update-notifier \
        --globalconfig /dev/null --registry "http://$server:8000/" harmless
    [ -e "$dir/project/node_modules/harmless/index.js" ]
}
apt_install() {
    local dir=$work/apt
    mkdir -p "$dir/package/DEBIAN" "$dir/archive" "$dir"/root/{etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d},var/lib/dpkg,var/cache/apt/archives/partial,var/lib/apt/lists/partial}
    printf '%s\n' 'Package: harmless' 'Version: 1' 'Architecture: all' 'Maintainer: x <x@example.net>' \
        'Description: nothing' >"$dir/package/DEBIAN/control"
    dpkg-deb -b "$dir/package" "$dir/archive/harmless_1_all.deb" >/dev/null
    (cd "$dir/archive" && apt-ftparchive packages . >Packages && gzip -9k Packages \
        && apt-ftparchive release . >"$dir/Release" && mv "$dir/Release" .)
    : >"$dir/root/var/lib/dpkg/status"
    echo "deb [trusted=yes] http://$server:8000 ./" >"$dir/root/etc/apt/sources.list"
    # Everything is below its own root, so that nothing of this machine's is read or changed.
    printf 'Dir "%s/root";\nDir::State::status "%s/root/var/lib/dpkg/status";\nAPT::Sandbox::User "root";\n' \
        "$dir" "$dir" >"$dir/apt.conf"
    serve 8000 python3 -m http.server --protocol HTTP/1.1 --bind "$server" --directory "$dir/archive" 8000
    local apt=(in_agent env -i PATH="$PATH" APT_CONFIG="$dir/apt.conf" apt-get -qq -y)
    "${apt[@]}" update
    "${apt[@]}" install --download-only harmless
    [ -e "$dir/root/var/cache/apt/archives/harmless_1_all.deb" ]
}
postgres_client() {
    local bin=/usr/lib/postgresql/15/bin dir=$work/postgres
    install -d -o postgres "$dir"
    chmod 711 "$work"
    echo secret >"$dir/password"
    runuser -u postgres -- $bin/initdb -D "$dir/data" -U app -A scram-sha-256 --pwfile "$dir/password" >/dev/null
    serve 5432 runuser -u postgres -- $bin/postgres -D "$dir/data" -c listen_addresses="$server" \
        -c unix_socket_directories= -c ssl=off
    echo "host all all 192.0.2.0/24 scram-sha-256" >>"$dir/data/pg_hba.conf"
    kill -HUP "$(head -1 "$dir/data/postmaster.pid")"
    sql() { in_agent env PGPASSWORD=secret PGCONNECT_TIMEOUT=5 psql -q -h "$server" -U app postgres "$@" >/dev/null; }
    sql -c 'CREATE TABLE job (id serial PRIMARY KEY, what text)'
    sql -c "INSERT INTO job (what) SELECT 'job ' || n FROM generate_series(1, 50) n" -c 'SELECT * FROM job'
    sql -c 'UPDATE job SET what = upper(what) WHERE id < 10' -c 'DELETE FROM job WHERE id > 40' -c 'SELECT count(*) FROM job'
}
