"""Answer who answers."""

import json
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WhoAmI(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked_by = self.headers.get("X-Forwarded-For", self.client_address[0])
        answer = {"host": socket.gethostname(), "asked_by": asked_by, "path": self.path}
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, template, *arguments):
        if self.path != "/health":
            super().log_message(template, *arguments)


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        # A load balancer that probes hangs up as soon as it knows.
        if not isinstance(sys.exc_info()[1], ConnectionResetError):
            super().handle_error(request, client_address)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
Server(("", 8000), WhoAmI).serve_forever()
