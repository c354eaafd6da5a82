"""One session of JSON-RPC over HTTP, on one connection."""
import http.client
import json
import sys
import urllib.parse

LOGIN = {"service": "common", "method": "login", "args": ["shop", "admin", "secret"]}
SESSIONS = {
    "mcp": [
        ("initialize", {"protocolVersion": "2025-06-18", "capabilities": {},
                        "clientInfo": {"name": "agent", "version": "1"}}),
        ("notifications/initialized", {}),
        ("tools/list", {}),
        ("tools/call", {"name": "forecast", "arguments": {"city": "Oslo"}}),
    ],
    "ethereum": [
        ("eth_chainId", []),
        ("eth_blockNumber", []),
        ("eth_getBalance", ["0x" + "12" * 20, "latest"]),
        ("eth_getBlockByNumber", ["latest", False]),
        ("eth_call", [{"to": "0x" + "34" * 20, "data": "0x18160ddd"}, "latest"]),
    ],
    "odoo": [
        ("call", LOGIN),
        ("call", {"service": "object", "method": "execute_kw",
                  "args": ["shop", 7, "secret", "res.partner", "search", [[]]]}),
    ],
}

url = urllib.parse.urlparse(sys.argv[1])
connection = http.client.HTTPConnection(url.hostname, url.port)
for number, (method, params) in enumerate(SESSIONS[sys.argv[2]], 1):
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    connection.request("POST", url.path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
