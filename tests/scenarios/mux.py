"""A tunnel that is nobody's tool: many streams over one TLS connection.

Who dials and who listens are chosen apart:
  dial + --connect    a reverse tunnel, run inside the agent
  accept + --listen   its hub outside
  dial + --listen     a port-forward (like kubectl's), run inside the agent
  accept + --connect  the cluster outside

A frame is a stream number (4 bytes), a kind (1), a length (4) and the data.
"""

import argparse
import asyncio
import ssl
import struct

OPEN, DATA, CLOSE = range(3)
HEADER = struct.Struct(">IBI")


def endpoint(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class Mux:
    def __init__(self, reader, writer, target):
        self.reader, self.writer, self.target = reader, writer, target
        self.streams, self.next = {}, 1

    def send(self, stream, kind, data=b""):
        self.writer.write(HEADER.pack(stream, kind, len(data)) + data)

    async def pump(self, stream, reader):
        """Sends what a local connection says until it ends."""
        while data := await reader.read(16384):
            self.send(stream, DATA, data)
            await self.writer.drain()
        self.send(stream, CLOSE)

    async def accepted(self, reader, writer):
        stream, self.next = self.next, self.next + 1
        self.streams[stream] = writer
        self.send(stream, OPEN)
        await self.pump(stream, reader)

    async def run(self):
        pumps = set()
        while True:
            try:
                head = await self.reader.readexactly(HEADER.size)
            except asyncio.IncompleteReadError:
                return
            stream, kind, length = HEADER.unpack(head)
            data = await self.reader.readexactly(length)
            if kind == OPEN:
                reader, self.streams[stream] = await asyncio.open_connection(*self.target)
                pumps.add(asyncio.create_task(self.pump(stream, reader)))
            elif kind == DATA:
                self.streams[stream].write(data)
            elif stream in self.streams:
                self.streams.pop(stream).close()


async def tunnel(reader, writer, options):
    mux = Mux(reader, writer, options.connect)
    if options.listen:
        await asyncio.start_server(mux.accepted, *options.listen)
    await mux.run()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["dial", "accept"])
    parser.add_argument("peer", type=endpoint)
    parser.add_argument("--listen", type=endpoint)
    parser.add_argument("--connect", type=endpoint)
    parser.add_argument("--trust")
    parser.add_argument("--certificate", nargs=2, metavar=("CERT", "KEY"))
    options = parser.parse_args()
    if options.role == "dial":
        context = ssl.create_default_context(cafile=options.trust)
        peer = await asyncio.open_connection(*options.peer, ssl=context)
        await tunnel(*peer, options)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*options.certificate)
        server = await asyncio.start_server(
            lambda reader, writer: tunnel(reader, writer, options), *options.peer, ssl=context
        )
        await server.serve_forever()


asyncio.run(main())
