"""A web server: the internet's, or a development server inside an agent.

GET /bytes/N    N bytes of a fixed pattern (the rig checks them)
GET /text/N     N printable characters
GET /registry/X what a package registry says about X
GET /document   an article on mining protocols: text, not mining
POST anything   how many bytes arrived
"""

import argparse
import json
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LINE = "The quick brown fox jumps over the lazy dog while the tests run on. "
DOCUMENT = """# How miners talk to pools

A client opens with these lines:

{"id":1,"method":"mining.subscribe","params":["cgminer/4.10.0"]}
{"id":2,"method":"mining.authorize","params":["user.worker","x"]}

and the pool answers with work:

{"id":null,"method":"mining.notify","params":["bf","4d16b6f8",[],true]}
"""


def noise(length):
    """Bytes that do not compress, from a linear congruential generator."""
    state, found = 1, bytearray()
    for _ in range(length):
        state = (state * 1103515245 + 12345) % 2**31
        found.append(state >> 16 & 255)
    return bytes(found)


# Made once; longer bodies repeat it. `pattern` in tests/src/traffic.rs is the same.
PATTERN = noise(40000)


def repeat(unit, length):
    return (unit * (length // len(unit) + 1))[:length]


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open, and sends small answers at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def answer(self, body, kind="application/json", status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        _, route, *rest = self.path.split("/")
        if route == "bytes":
            self.answer(repeat(PATTERN, int(rest[0])), "application/octet-stream")
        elif route == "text":
            self.answer(repeat(LINE, int(rest[0])).encode(), "text/plain")
        elif route == "registry":
            versions = {f"1.{n}.0": {"size": 4096 + n, "sha": "0" * 64} for n in range(40)}
            self.answer(json.dumps({"name": rest[0], "versions": versions}).encode())
        elif route == "document":
            self.answer(DOCUMENT.encode(), "text/markdown")
        else:
            self.answer(b"{}", status=404)

    def do_POST(self):
        self.answer(json.dumps({"received": len(self.body())}).encode())

    def log_message(self, form, *args):
        print(form % args)


def serve(handler):
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", nargs=2, metavar=("CERT", "KEY"))
    options = parser.parse_args()
    server = ThreadingHTTPServer((options.address, options.port), handler)
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(Handler)
