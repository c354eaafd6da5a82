"""A mirror of packages inside an agent, as devpi or apt-cacher-ng: it fetches what it
has not got, and hands out what it has.

  mirror.py PORT UPSTREAM --trust FILE
"""

import argparse
import ssl
import urllib.request
from http.server import ThreadingHTTPServer

from web import Handler

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("upstream")
parser.add_argument("--trust", required=True)
options = parser.parse_args()
context = ssl.create_default_context(cafile=options.trust)
kept = {}


class Mirror(Handler):
    def do_GET(self):
        if self.path not in kept:
            url = options.upstream + self.path
            kept[self.path] = urllib.request.urlopen(url, context=context, timeout=8).read()
        self.answer(kept[self.path], "application/octet-stream")


ThreadingHTTPServer(("127.0.0.1", options.port), Mirror).serve_forever()
