"""A reverse tunnel by paramiko: port 9000 of the server's loopback leads to port 8000 here."""
import select
import socket
import sys
import threading

import paramiko


def relay(channel):
    inside = socket.create_connection(("127.0.0.1", 8000))
    while True:
        ready, _, _ = select.select([channel, inside], [], [])
        for one, other in ((channel, inside), (inside, channel)):
            if one in ready:
                data = one.recv(65536)
                if not data:
                    channel.close()
                    inside.close()
                    return
                other.sendall(data)


host, key = sys.argv[1:]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect(host, username="root", pkey=paramiko.Ed25519Key.from_private_key_file(key))
transport = client.get_transport()
transport.request_port_forward("", 9000)
while True:
    accepted = transport.accept(60)
    if accepted is None:
        break
    threading.Thread(target=relay, args=(accepted,), daemon=True).start()
