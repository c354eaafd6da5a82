"""Answers an Electrum client's first questions: JSON-RPC in lines, as Stratum's, but no mining."""
import json
import socketserver
import sys

ANSWERS = {
    "server.version": ["ElectrumX 1.16.0", "1.4"],
    "server.banner": "Welcome",
    "server.features": {"genesis_hash": "00" * 32, "hash_function": "sha256", "protocol_max": "1.4"},
    "blockchain.headers.subscribe": {"height": 900000, "hex": "00" * 80},
    "blockchain.scripthash.subscribe": "cd" * 32,
    "blockchain.scripthash.get_history": [{"height": 899990, "tx_hash": "ef" * 32}],
    "blockchain.estimatefee": 0.0001,
}


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            asked = json.loads(line)
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": ANSWERS.get(asked["method"])}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
