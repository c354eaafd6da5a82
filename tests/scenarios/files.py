"""A folder over HTTPS: repositories, packages, whatever lies in it.

  files.py ADDRESS PORT FOLDER CERT KEY
"""

import functools
import ssl
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

address, port, folder, certificate, key = sys.argv[1:]


class Files(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"


server = ThreadingHTTPServer((address, int(port)), functools.partial(Files, directory=folder))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
