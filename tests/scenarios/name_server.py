"""A name server, over UDP and TCP at `argv[1]:argv[2]`: every name has one IPv4
address, `argv[3]`, by way of a CNAME, and no other record."""

import ipaddress
import socket
import struct
import sys
import threading

host, port, address = sys.argv[1], int(sys.argv[2]), ipaddress.ip_address(sys.argv[3])


def answer(query):
    at = 12
    while query[at]:
        at += query[at] + 1
    question = query[12 : at + 5]
    (kind,) = struct.unpack_from("!H", query, at + 1)
    records = []
    if kind == 1:
        # Its name is a pointer to the question's, what it says "edge" and that name.
        records.append(struct.pack("!HHHIH", 0xC00C, 5, 1, 30, 7) + b"\x04edge\xc0\x0c")
        # The name before is what the first record says.
        named = 0xC000 | 12 + len(question) + 12
        records.append(struct.pack("!HHHIH", named, 1, 1, 30, 4) + address.packed)
    header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0)
    return header + question + b"".join(records)


def serve_stream(stream):
    with stream:
        while length := stream.recv(2, socket.MSG_WAITALL):
            query = stream.recv(struct.unpack("!H", length)[0], socket.MSG_WAITALL)
            reply = answer(query)
            stream.sendall(struct.pack("!H", len(reply)) + reply)


def serve_streams(listener):
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=serve_stream, args=(stream,), daemon=True).start()


datagrams = socket.socket(type=socket.SOCK_DGRAM)
datagrams.bind((host, port))
# The last, because its readers wait for it.
listener = socket.create_server((host, port))
threading.Thread(target=serve_streams, args=(listener,), daemon=True).start()
while True:
    query, peer = datagrams.recvfrom(65535)
    datagrams.sendto(answer(query), peer)
