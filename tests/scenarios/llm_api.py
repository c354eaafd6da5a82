"""A model's API: each answer asks for one more call of the development server.

POST /v1/messages    {"messages": [...]}: the whole conversation every time
POST /v1/responses   {"previous": N, "input": "..."}: only what is new
"""

import json

from web import LINE, Handler, repeat, serve

# Bytes of prose in each answer, and of the tool result it asks for.
STEPS = [(900, 700), (2400, 3100), (1200, 5200), (3600, 1500), (700, 2600), (1800, 900)]


class Api(Handler):
    def do_POST(self):
        asked = json.loads(self.body())
        if self.path == "/v1/messages":
            step = sum(message["role"] == "tool" for message in asked["messages"])
        else:
            step = asked["previous"]
        answer = {"id": step + 1, "text": "Done.", "stop": "end_turn"}
        if step < len(STEPS):
            prose, result = STEPS[step]
            answer["text"] = repeat(LINE, prose)
            answer["stop"] = "tool_use"
            answer["tool"] = {"name": "http_get", "path": f"/text/{result}"}
        self.answer(json.dumps(answer).encode())


if __name__ == "__main__":
    serve(Api)
