"""As much of PostgreSQL's protocol, version 3.0, as a query needs.

  sql.py serve ADDRESS PORT
  sql.py ask HOST PORT       twenty queries on one connection
"""

import socket
import socketserver
import struct
import sys

role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])


def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def read(stream):
    kind, length = struct.unpack("!cI", stream.read(5))
    return kind, stream.read(length - 4)


class Server(socketserver.StreamRequestHandler):
    def handle(self):
        (length,) = struct.unpack("!I", self.rfile.read(4))
        self.rfile.read(length - 4)
        ready = message(b"Z", b"I")
        self.wfile.write(message(b"R", struct.pack("!I", 0)) + ready)
        while True:
            kind, body = read(self.rfile)
            if kind == b"X":
                return
            column = b"name\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)
            answer = message(b"T", struct.pack("!h", 1) + column)
            rows = len(body) % 17
            for row in range(rows):
                value = f"row {row} of {rows}".encode()
                answer += message(b"D", struct.pack("!hI", 1, len(value)) + value)
            self.wfile.write(answer + message(b"C", f"SELECT {rows}\0".encode()) + ready)


if role == "serve":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer((host, port), Server).serve_forever()
rows = 0
with socket.create_connection((host, port), timeout=10) as connection:
    stream = connection.makefile("rb")
    startup = struct.pack("!I", 3 << 16) + b"user\0agent\0database\0shop\0\0"
    connection.sendall(struct.pack("!I", len(startup) + 4) + startup)
    while read(stream)[0] != b"Z":
        pass
    for number in range(20):
        query = f"SELECT name FROM orders WHERE customer = {7 ** number}\0"
        connection.sendall(message(b"Q", query.encode()))
        while (answer := read(stream))[0] != b"Z":
            rows += answer[0] == b"D"
    connection.sendall(message(b"X", b""))
assert rows > 20
print(f"done: 20 calls, {rows} bytes")
