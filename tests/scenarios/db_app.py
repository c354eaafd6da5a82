"""A job worker: gets jobs over a connection it made to the outside, asks a real
Redis for the data (a connection per job), and sends the report back."""

import argparse
import json
import socket
import ssl

parser = argparse.ArgumentParser()
parser.add_argument("server")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--trust", required=True)
parser.add_argument("--redis-port", type=int, required=True)
options = parser.parse_args()


class Redis:
    """As much of RESP, Redis' protocol, as this worker needs."""

    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", options.redis_port))
        self.answers = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answers.close()
        self.socket.close()

    def ask(self, *words):
        request = f"*{len(words)}\r\n"
        request += "".join(f"${len(word)}\r\n{word}\r\n" for word in map(str, words))
        self.socket.sendall(request.encode())
        return self.answer()

    def answer(self):
        line = self.answers.readline().decode().rstrip()
        kind, rest = line[0], line[1:]
        if kind == "-":
            raise RuntimeError(rest)
        if kind == "$":
            return self.answers.read(int(rest) + 2)[:-2].decode()
        if kind == "*":
            return [self.answer() for _ in range(int(rest))]
        return rest


context = ssl.create_default_context(cafile=options.trust)
raw = socket.create_connection((options.server, options.port), timeout=10)
server = context.wrap_socket(raw, server_hostname=options.server)
lines = server.makefile("rw")
for line in lines:
    job = json.loads(line)
    with Redis() as redis:
        key = job["report"]
        for row in range(job["rows"]):
            redis.ask("RPUSH", key, f"{key}: order {row}, 3 pieces, paid, shipped")
        rows = redis.ask("LRANGE", key, 0, -1)
    lines.write(json.dumps({"job": job["job"], "rows": rows}) + "\n")
    lines.flush()
