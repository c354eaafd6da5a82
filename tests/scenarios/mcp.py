"""MCP, the protocol of agents' tools: JSON-RPC 2.0 like mining's, but not mining.

  mcp.py serve-tcp ADDRESS PORT    lines of JSON
  mcp.py serve-http ADDRESS PORT   a POST each
  mcp.py call-tcp ADDRESS PORT
  mcp.py call-http ADDRESS PORT
"""

import http.client
import json
import socket
import socketserver
import sys
from http.server import ThreadingHTTPServer

from web import LINE, Handler, repeat

TOOLS = [
    {"name": name, "description": repeat(LINE, 200), "inputSchema": {"type": "object"}}
    for name in ("search", "read_file", "submit", "login")
]


def handle(request):
    method, params = request["method"], request.get("params", {})
    if method == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
        result["serverInfo"] = {"name": "files", "version": "1.0.0"}
    elif method == "tools/list":
        result = {"tools": TOOLS}
    else:
        text = repeat(LINE, params["arguments"]["length"])
        result = {"content": [{"type": "text", "text": text}], "isError": False}
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def requests():
    hello = {"protocolVersion": "2025-06-18", "clientInfo": {"name": "agent", "version": "1"}}
    calls = [("initialize", hello), ("tools/list", {})]
    for tool, length in ("search", 300), ("login", 80), ("submit", 900), ("read_file", 12000):
        calls.append(("tools/call", {"name": tool, "arguments": {"length": length}}))
    for number, (method, params) in enumerate(calls):
        yield {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(json.dumps(handle(json.loads(line))).encode() + b"\n")


class Posts(Handler):
    def do_POST(self):
        self.answer(json.dumps(handle(json.loads(self.body()))).encode())


def call_tcp(address):
    stream = socket.create_connection(address, timeout=10).makefile("rw")
    for request in requests():
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        yield request, json.loads(stream.readline())


def call_http(address):
    connection = http.client.HTTPConnection(*address, timeout=10)
    for request in requests():
        connection.request("POST", "/mcp", json.dumps(request))
        yield request, json.loads(connection.getresponse().read())


def main():
    role, address = sys.argv[1], (sys.argv[2], int(sys.argv[3]))
    if role == "serve-tcp":
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        socketserver.ThreadingTCPServer(address, Lines).serve_forever()
    elif role == "serve-http":
        ThreadingHTTPServer(address, Posts).serve_forever()
    else:
        calls = call_tcp if role == "call-tcp" else call_http
        count, total = 0, 0
        for request, answer in calls(address):
            assert answer["id"] == request["id"] and "result" in answer, answer
            count += 1
            total += len(json.dumps(answer))
        print(f"done: {count} calls, {total} bytes")


main()
