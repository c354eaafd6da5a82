"""What Electrum 4 asks a server at its start."""
import json
import socket
import sys

QUESTIONS = [
    ("server.version", ["electrum/4.5.8", "1.4"]),
    ("blockchain.headers.subscribe", []),
    ("server.banner", []),
    ("server.features", []),
    ("blockchain.scripthash.subscribe", ["12" * 32]),
    ("blockchain.scripthash.get_history", ["12" * 32]),
    ("blockchain.estimatefee", [6]),
]

with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    answers = connection.makefile()
    for number, (method, params) in enumerate(QUESTIONS):
        asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        connection.sendall(json.dumps(asked).encode() + b"\n")
        assert "result" in json.loads(answers.readline())
