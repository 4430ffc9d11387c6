"""A web app: background jobs, kept in a file.

A job is done after the answer, and what fails becomes a dead letter.  When a request is answered
its job is in the file, and is done even if the program is killed now.

Watch the second address: it becomes a dead letter that says why.

It prints:

    POST ann@example.org
    mail to ann@example.org
    POST nobody
    nobody got no mail: no address

Next: 21_operate.py
"""

import logging
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

import nsqlite

ONCE = nsqlite.Retry(max_attempts=1)
app = nsqlite.App()


@app.handler("signups", "welcome", retry=ONCE, dead_letter="failed")
def welcome(message: nsqlite.Message[bytes]) -> None:
    """Write a mail."""
    if b"@" not in message.body:
        raise ValueError("no address")
    print("mail to", message.body.decode())


# What answers the requests.  When it answers, the job is in the file.
class Web(BaseHTTPRequestHandler):
    """The requests: each signs somebody up."""

    def do_POST(self) -> None:
        """Put a job, and answer."""
        app.broker.topic("signups").put(self.path[1:].encode())
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_said: object) -> None:
        """Log nothing."""


# The app runs beside the server, and two people sign up.  Who gets a mail?
with tempfile.TemporaryDirectory() as directory:
    server = HTTPServer(("127.0.0.1", 0), Web)
    port = server.server_port
    logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # meant to fail
    store = nsqlite.SQLite(f"{directory}/signups.db")
    with nsqlite.Broker(store=store) as broker, app.running(broker):
        threading.Thread(target=server.serve_forever).start()
        for name in ("ann@example.org", "nobody"):
            print("POST", name)
            urlopen(f"http://127.0.0.1:{port}/{name}", data=b"")
            broker.topic("signups").join()
        server.shutdown()
        server.server_close()
        letter = broker.topic("failed").channel("letters").peek()[0].body
        print(f"{letter.body.decode()} got no mail: {letter.error}")
