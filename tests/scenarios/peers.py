"""A member of a cluster: `serve PORT` answers peers, `join PORT HOST…` connects to
all of them, to some before they are up."""

import socket
import sys

port = int(sys.argv[2])
if sys.argv[1] == "serve":
    with socket.create_server(("0.0.0.0", port), backlog=128) as server:
        while True:
            peer, _ = server.accept()
            with peer:
                peer.sendall(peer.recv(64))
# What a launcher resolves and tries on the way: UDP sockets that are connected
# and send nothing, and peers that do not listen yet.
calls, total = 0, 0
for number, host in enumerate(sys.argv[3:]):
    with socket.socket(type=socket.SOCK_DGRAM) as source:
        source.connect((host, 53))
    if number < 3:
        with socket.socket() as early:
            assert early.connect_ex((host, port + 1)) != 0
    with socket.create_connection((host, port), timeout=5) as peer:
        peer.sendall(b"x" * 64)
        total += len(peer.recv(64))
        calls += 1
print(f"done: {calls} calls, {total} bytes")
