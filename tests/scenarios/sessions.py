"""Long sessions over TLS that stay open and carry little, as agents have many.

  sessions.py serve ADDRESS PORT --certificate CERT KEY
  sessions.py KIND HOST PORT --trust FILE [--for SECONDS] [--every SECONDS]

A client names its kind in its first line; `--every` is the pace of what is regular,
so that a test need not take hours.

chat     people write to each other, when they like and as much as they like
irc      a server that asks every now and then whether somebody is there, and lines
events   server-sent events: a price at a time, all of nearly one size, no answer
mqtt     a broker that hands on a sensor's readings, each acknowledged, and keepalives
stream   questions to a model, whose answers come word by word
scrape   metrics that are asked for regularly, nearly the same each time
"""

import argparse
import asyncio
import random
import ssl
import struct

parser = argparse.ArgumentParser()
parser.add_argument("kind")
parser.add_argument("host")
parser.add_argument("port", type=int)
parser.add_argument("--certificate", nargs=2)
parser.add_argument("--trust")
parser.add_argument("--for", type=float, default=10, dest="seconds")
parser.add_argument("--every", type=float, default=1)
options = parser.parse_args()
WORDS = "the a of to build fails on line 7 because nobody has seen this test before".split()


def words(count):
    return " ".join(random.choice(WORDS) for _ in range(count))


async def send(writer, text):
    writer.write(text if isinstance(text, bytes) else text.encode())
    await writer.drain()


async def at_random(every):
    await asyncio.sleep(random.expovariate(1 / every))


async def regularly(every):
    await asyncio.sleep(every * random.uniform(0.95, 1.05))


class Server:
    def __init__(self, reader, writer, every):
        self.reader, self.writer, self.every = reader, writer, every

    async def chat(self):
        while True:
            await at_random(self.every)
            await send(self.writer, f"<someone> {words(random.randint(1, 60))}\r\n")

    async def irc(self):
        asyncio.create_task(self.pings())
        await self.chat()

    async def pings(self):
        while True:
            await regularly(3 * self.every)
            await send(self.writer, "PING :irc.hub.example\r\n")

    async def events(self):
        await send(self.writer, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            await regularly(self.every)
            price = round(random.uniform(90, 110), 2)
            await send(self.writer, f'data: {{"symbol": "EXMPL", "price": {price}, "volume": 10}}\n\n')

    async def mqtt(self):
        asyncio.create_task(self.readings())
        while (await self.reader.readexactly(2))[0] != 0:
            await send(self.writer, b"\xd0\x00")

    async def readings(self):
        number = 0
        while True:
            await regularly(2 * self.every)
            number += 1
            reading = f'{{"sensor": "hall-3", "celsius": {random.uniform(18, 24):.2f}}}'.encode()
            topic = struct.pack("!H", 6) + b"hall/3" + struct.pack("!H", number % 65536)
            await send(self.writer, bytes([0x32, len(topic + reading)]) + topic + reading)

    async def stream(self):
        while await self.reader.readline():
            for _ in range(random.randint(20, 60)):
                await send(self.writer, f"data: {words(random.randint(1, 4))}\n\n")
                await asyncio.sleep(0.03)

    async def scrape(self):
        while await self.reader.readline():
            lines = [f"requests_total{{route=\"{it}\"}} {random.randint(1000, 9999)}" for it in WORDS]
            await send(self.writer, "\n".join(lines * 6) + "\n")


async def serve(reader, writer):
    kind, every = (await reader.readline()).split()
    try:
        await getattr(Server(reader, writer, float(every)), kind.decode())()
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        pass
    writer.close()


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer, self.received = reader, writer, 0

    async def read(self):
        """Counts what comes in; answers what wants an answer."""
        while data := await self.reader.read(65536):
            self.received += len(data)
            if options.kind == "irc" and data.startswith(b"PING"):
                await send(self.writer, data.replace(b"PING", b"PONG"))
            elif options.kind == "mqtt" and data[0] == 0x32:
                await send(self.writer, b"\x40\x02" + data[10:12])

    async def say(self):
        """What it says by itself."""
        while options.kind != "events":
            if options.kind in ("chat", "irc"):
                await at_random(3 * options.every)
                await send(self.writer, words(random.randint(1, 20)) + "\r\n")
                continue
            await regularly(options.every)
            if options.kind == "mqtt":
                await send(self.writer, b"\xc0\x00")
            elif options.kind == "stream":
                await send(self.writer, words(random.randint(20, 200)) + "\n")
            else:
                await send(self.writer, "GET /metrics\n")


async def main():
    if options.kind == "serve":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.certificate)
        server = await asyncio.start_server(serve, options.host, options.port, ssl=context)
        await server.serve_forever()
    context = ssl.create_default_context(cafile=options.trust)
    reader, writer = await asyncio.open_connection(options.host, options.port, ssl=context)
    client = Client(reader, writer)
    await send(writer, f"{options.kind} {options.every}\n")
    tasks = [asyncio.create_task(client.read()), asyncio.create_task(client.say())]
    await asyncio.sleep(options.seconds)
    for task in tasks:
        task.cancel()
    writer.close()
    print(f"done: 1 calls, {client.received} bytes")


asyncio.run(main())
