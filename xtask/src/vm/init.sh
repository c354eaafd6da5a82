#!/bin/busybox sh
# The first process of the machine: starts the daemon, does in an agent's cgroup
# what the checks look for, and writes what the daemon saw to the console. Lines
# for the checks begin with @.

say() { echo "@$*"; }

# wait_for WHAT COMMAND…: until the command succeeds, at most 30 s.
wait_for() {
    what=$1
    shift
    for _ in $(seq 300); do
        "$@" 2>/dev/null && return
        usleep 100000
    done
    say failed "no $what after 30 s"
}

# Whether something listens on a TCP port, in hexadecimal as the kernel prints it.
listens() { grep -q ":$1 .* 0A " /proc/net/tcp /proc/net/tcp6; }

# Whether the daemon has told of the end of that many of the agent's connections.
closed() { [ "$(grep -c '"state":"closed"' /tmp/tail)" -ge "$1" ]; }

# Whether the agent's network is watched: on a busy machine that takes a while
# after its birth, and what it does meanwhile is a gap, not what is checked here.
attached() { agent-monitor status --output json | grep -q '"attached":true'; }

# What the agent does, one after the other. Commands by their path are started as
# programs; others are built into the shell.
agent() {
    echo 0 > /sys/fs/cgroup/agents/one/cgroup.procs
    /bin/echo 'two words' '' --flag > /dev/null
    /bin/sh -c 'exit 42'
    /bin/sh -c 'kill -9 $$'

    /bin/nc -l -p 2222 -e /bin/sh /init server &
    wait_for 'listener' listens 08AE
    (printf 'SSH-2.0-vm_client\r\n'; head -c 200000 /dev/zero) |
        /bin/nc 127.0.0.1 2222 > /tmp/at-client
    wait

    # Nobody listens.
    /bin/nc ::1 9
    # A device whose driver is not there: the hook runs before anyone misses it.
    mknod /tmp/gpu c 195 0
    cat /tmp/gpu
    echo 0 > /proc/sys/vm/nr_hugepages
    # One datagram each.
    /bin/traceroute -q 1 -m 1 -w 1 -p 33434 127.0.0.1
    /bin/traceroute6 -q 1 -m 1 -w 1 -p 33434 ::1
}

# The other end of its connection, a program of the agent's too. It answers when
# it has everything, so that nothing is cut off: 19 bytes of banner and the rest.
server() {
    printf 'SSH-2.0-vm_server\r\n'
    head -c 200019 > /tmp/at-server
    head -c 50000 /dev/zero
}

main() {
    /bin/busybox --install -s /bin
    export PATH=/bin
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    # The kernel writes to the other port.
    exec > /dev/ttyS0 2>&1
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t bpf bpf /sys/fs/bpf
    mount -t tmpfs tmpfs /tmp
    ip link set lo up
    mkdir /sys/fs/cgroup/agents
    # The firmware leaves the console in the middle of a line.
    echo
    say kernel "$(uname -r)"

    agent-monitor doctor --output json | sed 's/^/@doctor /'
    # Its log tells, at this level, what the verifier had to go through.
    RUST_LOG=info,agent_monitor=debug agent-monitor run --agent 'cgroup:/agents/*' 2> /tmp/log &
    daemon=$!
    if ! agent-monitor status --wait 60s > /dev/null; then
        sed 's/^/@log /' /tmp/log
        say failed 'the daemon does not become ready'
        return
    fi
    # What happened before it was connected is among the past events.
    agent-monitor tail -n 1000 --output json > /tmp/tail &
    tail=$!

    mkdir /sys/fs/cgroup/agents/one
    wait_for 'attached agent' attached
    sh /init agent > /tmp/agent 2>&1
    grep '^@' /tmp/agent
    say received "$(wc -c < /tmp/at-server) $(wc -c < /tmp/at-client)"
    wait_for 'two closed connections' closed 2
    agent-monitor status --output json | sed 's/^/@status /'
    kill $daemon
    wait $daemon
    say daemon "ended with $?"
    wait $tail

    sed 's/^/@log /' /tmp/log
    sed 's/^/@tail /' /tmp/tail
    say end
}

case $1 in
agent) agent ;;
server) server ;;
*)
    main > /dev/console 2>&1
    reboot -f
    ;;
esac
