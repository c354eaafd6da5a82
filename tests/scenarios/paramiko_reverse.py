"""A reverse tunnel by paramiko, without any OpenSSH program in the agent."""

import argparse
import socket
import threading

import paramiko

parser = argparse.ArgumentParser()
parser.add_argument("server")
parser.add_argument("--port", type=int, default=22)
parser.add_argument("--key", required=True)
parser.add_argument("--remote-port", type=int, required=True)
parser.add_argument("--local-port", type=int, required=True)
options = parser.parse_args()


def copy(source, sink):
    while data := source.recv(16384):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


def relay(channel):
    inside = socket.create_connection(("127.0.0.1", options.local_port))
    back = threading.Thread(target=copy, args=(inside, channel))
    back.start()
    copy(channel, inside)
    back.join()
    channel.close()
    inside.close()


client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect(
    options.server,
    port=options.port,
    username="root",
    key_filename=options.key,
    allow_agent=False,
    look_for_keys=False,
)
transport = client.get_transport()
transport.request_port_forward("127.0.0.1", options.remote_port)
# Until here paramiko refuses the server's channels, although sshd listens already.
print("forwarding")
while transport.is_active():
    if channel := transport.accept(1):
        threading.Thread(target=relay, args=(channel,), daemon=True).start()
