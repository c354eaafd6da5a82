"""A receiver of forwarded alerts that can be told to misbehave.

collector.py {hec|bulk} PORT FOLDER SEED

Speaks Splunk's HTTP Event Collector or the `_bulk` interface of Elasticsearch, as their
documentation has them. The id of each alert that it takes is a line of FOLDER/ids before it
answers. While there is a file FOLDER/errors, requests meet, at random, what goes wrong with
receivers: errors of the server, "too busy", a connection that is reset before or after the
alerts were taken, a batch of which only a part is taken.
"""

import http.server
import json
import os
import random
import socket
import struct
import sys
import threading

KIND, PORT, FOLDER, SEED = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
RANDOM = random.Random(SEED)
# Held from looking for an id until it is kept: an index creates a document once, however
# many ask at the same time.
LOCK = threading.RLock()
KNOWN = set()
# Killed in the middle of a line, it had not answered for that.
with open(f"{FOLDER}/ids", "rb+") as kept:
    whole = kept.read()
    whole = whole[: whole.rfind(b"\n") + 1]
    kept.truncate(len(whole))
# An index remembers its documents.
if KIND == "bulk":
    KNOWN.update(whole.decode().splitlines())
IDS = open(f"{FOLDER}/ids", "a")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = None
        if os.path.exists(f"{FOLDER}/errors"):
            fault = RANDOM.choice(["500", "503", "429", "reset", "taken", "half", None])
        if fault in ("500", "503", "429"):
            return self.answer(int(fault), {"text": "not now", "code": 9}, busy=fault == "429")
        if fault == "reset":
            return self.reset()
        if KIND == "hec":
            self.hec(body, fault)
        else:
            self.bulk(body, fault)

    def hec(self, body, fault):
        assert self.path == "/services/collector/event", self.path
        assert self.headers["Authorization"] == "Splunk s3cret", self.headers
        events = [json.loads(line)["event"] for line in body.decode().splitlines()]
        take([event["id"] for event in events])
        if fault in ("taken", "half"):
            return self.reset()
        self.answer(200, {"text": "Success", "code": 0})

    def bulk(self, body, fault):
        assert self.path == "/_bulk", self.path
        assert body.endswith(b"\n"), body[-10:]
        lines = [json.loads(line) for line in body.decode().splitlines()]
        items, taken = [], []
        with LOCK:
            for action, document in zip(lines[::2], lines[1::2], strict=True):
                (name, target), = action.items()
                assert name == "create" and target["_index"] == "alerts", action
                assert document["event"]["id"] == target["_id"], document
                status = 201
                if fault == "half" and RANDOM.random() < 0.5:
                    status = 429
                elif target["_id"] in KNOWN:
                    status = 409
                else:
                    taken.append(target["_id"])
                items.append({"create": {"_id": target["_id"], "status": status, "error": {"type": "chaos"}}})
            take(taken)
        if fault == "taken":
            return self.reset()
        self.answer(200, {"took": 1, "errors": fault == "half", "items": items})

    def answer(self, status, value, busy=False):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if busy:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def reset(self):
        """Ends the connection with RST instead of FIN (socket(7), SO_LINGER)."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        # What is left to do with the request meets a closed socket.
        self.rfile, self.wfile = open(os.devnull, "rb"), open(os.devnull, "wb")

    def log_message(self, *_):
        pass


def take(ids):
    with LOCK:
        IDS.write("".join(f"{one}\n" for one in ids))
        IDS.flush()
        if KIND == "bulk":
            KNOWN.update(ids)


http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
