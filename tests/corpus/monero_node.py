"""As much of a Monero node as XMRig asks for work: ADDRESS, PORT.

It gives a template that is too short to be worked on, so that nothing is mined.
"""
import http.server
import json
import sys

ANSWERS = {
    "/getheight": {"height": 3210123, "hash": "5e" * 32, "status": "OK"},
    "/getinfo": {"height": 3210123, "top_block_hash": "5e" * 32, "status": "OK"},
    "getblocktemplate": {"blocktemplate_blob": "1010" + "5e" * 80, "blockhashing_blob": "1010" + "5e" * 74,
                         "difficulty": 1000, "height": 3210123, "prev_hash": "5e" * 32, "seed_hash": "5e" * 32,
                         "reserved_offset": 60, "status": "OK"},
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(ANSWERS.get(self.path, {}))

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({"jsonrpc": "2.0", "id": asked.get("id"), "result": ANSWERS.get(asked["method"])})

    def answer(self, answer):
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
