"""A server on this machine that misbehaves as told."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What is served, and what goes wrong; ``requests`` keeps the path and the Range header of each request."""

    def __init__(self):
        self.files = {}
        self.ranges = True  # whether Range is honoured
        self.edition = '"1"'
        self.break_after = []  # bytes after which each of the next answers breaks off
        self.claim_more = 0  # bytes that every answer announces and never sends
        self.statuses = []  # statuses of the next answers
        self.announce = True
        self.requests = []
        self.url = ""


def _handler(site):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            name, span = self.path.rpartition("/")[2], self.headers.get("Range")
            site.requests.append((name, span))
            status = site.statuses.pop(0) if site.statuses else 200
            if status != 200 or name not in site.files:
                self.send_error(status if status != 200 else 404)
                return
            content = site.files[name]
            start = 0
            if span and site.ranges and self.headers.get("If-Range") in {None, site.edition}:
                start = int(span.removeprefix("bytes=").rstrip("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header(
                    "Content-Range",
                    f"bytes {start}-{len(content) - 1}/{len(content) + site.claim_more}",
                )
            else:
                self.send_response(200)
            body = content[start:]
            if site.announce:
                self.send_header("Content-Length", str(len(body) + site.claim_more))
            if site.edition:
                self.send_header("ETag", site.edition)
            self.end_headers()
            stop = site.break_after.pop(0) if site.break_after else len(body)
            self.wfile.write(body[:stop])

    return Handler


@contextmanager
def serve():
    """Serve a site until the block ends."""
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(site)) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
