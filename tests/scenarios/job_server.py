"""Hands jobs to the worker that dials in, a line of JSON each, over TLS."""

import argparse
import json
import socket
import ssl

JOBS = 8

parser = argparse.ArgumentParser()
parser.add_argument("--address", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--certificate", nargs=2, required=True)
options = parser.parse_args()

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*options.certificate)
listener = context.wrap_socket(
    socket.create_server((options.address, options.port)), server_side=True
)
worker, _ = listener.accept()
lines = worker.makefile("rw")
total = 0
for number in range(JOBS):
    job = {"job": number, "report": f"customer-{number}", "rows": 5 + 12 * number}
    lines.write(json.dumps(job) + "\n")
    lines.flush()
    answer = json.loads(lines.readline())
    assert answer["job"] == number and len(answer["rows"]) == job["rows"], answer
    total += len(json.dumps(answer))
print(f"done: {JOBS} jobs, {total} bytes")
