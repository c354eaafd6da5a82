"""An agent's harness: asks a model over TLS, does the local call it answers
with, and sends the result back. Outside data, then an inside connection, then
data to the outside: the shape of a relay, but the bytes are not the same."""

import argparse
import http.client
import json
import ssl

parser = argparse.ArgumentParser()
parser.add_argument("--api", required=True)
parser.add_argument("--port", type=int, default=443)
parser.add_argument("--trust", required=True)
parser.add_argument("--dev-port", type=int, required=True)
parser.add_argument("--stateful", action="store_true", help="send only what is new")
options = parser.parse_args()

context = ssl.create_default_context(cafile=options.trust)
api = http.client.HTTPSConnection(options.api, options.port, context=context, timeout=10)
messages = [{"role": "system", "text": "You fix web applications. " * 40}]
result, previous, calls, total = "Fix the login page.", 0, 0, 0

while True:
    if options.stateful:
        path, request = "/v1/responses", {"previous": previous, "input": result}
    else:
        path, request = "/v1/messages", {"messages": messages}
    body = json.dumps(request)
    api.request("POST", path, body, {"Content-Type": "application/json"})
    answer = json.loads(api.getresponse().read())
    total += len(body)
    if answer["stop"] == "end_turn":
        break
    # A new connection per call, as most tools make.
    dev = http.client.HTTPConnection("127.0.0.1", options.dev_port, timeout=10)
    dev.request("GET", answer["tool"]["path"])
    result = dev.getresponse().read().decode()
    dev.close()
    messages += [
        {"role": "assistant", "text": answer["text"]},
        {"role": "tool", "text": result},
    ]
    previous = answer["id"]
    calls += 1

print(f"done: {calls} calls, {total} bytes")
