"""Receives alerts (POST) into the log and lists the last ones (GET)."""

import collections
import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

last = collections.deque(maxlen=20)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]:
            name, summary = alert["labels"]["alertname"], alert["annotations"].get("summary", "")
            text = f"{alert['status']}: {name}: {summary}"
            print(text)
            last.append(text)
        self.answer("")

    def do_GET(self):
        self.answer("".join(f"{line}\n" for line in last))

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", 8000), Receiver).serve_forever()
