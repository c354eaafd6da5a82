"""Answers JSON-RPC over HTTP: an MCP server, an Ethereum node, an Odoo server, by the method."""
import http.server
import json
import sys

ANSWERS = {
    "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                   "serverInfo": {"name": "weather", "version": "1"}},
    "tools/list": {"tools": [{"name": "forecast", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": [{"type": "text", "text": "sunny"}]},
    "eth_chainId": "0x1",
    "eth_blockNumber": "0x1312d00",
    "eth_getBalance": "0xde0b6b3a7640000",
    "eth_getBlockByNumber": {"number": "0x1312d00", "hash": "0x" + "ab" * 32, "transactions": []},
    "eth_call": "0x" + "00" * 31 + "2a",
    "call": 7,
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {"jsonrpc": "2.0", "id": asked.get("id"), "result": ANSWERS.get(asked["method"])}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
