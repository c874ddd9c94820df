"""Headless Chromium, for the tests of pages."""

import http.server
import importlib.util
import json
import shutil
import subprocess
import threading

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)
"""Nothing is asked of the network, and nothing of a display."""


def handler_of(serve):
    """The handler of a page's own serve.py, which sends the headers that threads need."""
    loader = importlib.util.spec_from_file_location("page_serve", serve)
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    return module.Handler


def visit(folder, page, profile, handler=http.server.SimpleHTTPRequestHandler, timeout=240):
    """What the scripts of a page find out, and post to the server of the folder that it lies in.

    Args:
        folder: what is served; the page is written into it.
        page: HTML.
        profile: an empty folder of the browser's own.
        handler: of the requests.
        timeout: in seconds.
    """
    seen, ready = {}, threading.Event()

    class Handler(handler):
        def __init__(self, *rest):
            super().__init__(*rest, directory=str(folder))

        def do_POST(self):
            seen.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            ready.set()

        def log_message(self, *rest):
            pass

    (folder / "visit.html").write_text(page)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/visit.html"
        own = ["--remote-debugging-port=0", f"--user-data-dir={profile}", "--window-size=1500,1000"]
        browser = subprocess.Popen(
            [CHROMIUM, *FLAGS, *own, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert ready.wait(timeout), "the page said nothing"
        finally:
            browser.kill()
            browser.wait()
            server.shutdown()
    assert "error" not in seen, seen["error"]
    return seen
