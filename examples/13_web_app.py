"""A web app's background jobs: kept in a file, done after the answer, dead letters for what fails.

When a request is answered its job is in the file, and is done even if the program is killed now.

Watch the second address: it becomes a dead letter that says why.

It prints:

    POST ann@example.org
    mail to ann@example.org
    POST nobody
    nobody got no mail: no address

Next: 14_operate.py
"""

import logging
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

import nsqlite

app = nsqlite.App()


@app.handler("signups", "welcome", retry=nsqlite.Retry(max_attempts=1), dead_letter="failed")
def welcome(message: nsqlite.Message[bytes]) -> None:
    """Write a mail."""
    if b"@" not in message.body:
        raise ValueError("no address")
    print("mail to", message.body.decode())


class Web(BaseHTTPRequestHandler):
    """The requests: each signs somebody up."""

    def do_POST(self) -> None:
        """Put a job, and answer."""
        app.broker.topic("signups").put(self.path[1:].encode())
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_said: object) -> None:
        """Log nothing."""


with tempfile.TemporaryDirectory() as directory, HTTPServer(("127.0.0.1", 0), Web) as server:
    logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # the failure is meant
    with nsqlite.Broker(store=nsqlite.SQLite(f"{directory}/a.db")) as broker, app.running(broker):
        threading.Thread(target=server.serve_forever).start()
        for name in ("ann@example.org", "nobody"):
            print("POST", name)
            urlopen(f"http://127.0.0.1:{server.server_port}/{name}", data=b"")
            broker.topic("signups").join()
        server.shutdown()
        letter = broker.topic("failed").channel("letters").peek()[0].body
        print(f"{letter.body.decode()} got no mail: {letter.error}")
