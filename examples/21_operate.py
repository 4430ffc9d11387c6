"""Operate: look into a program's file from a shell.

The owner of a file, if it opens that with `control=True`, carries out what a shell asks for.

Watch the mail that failed: it is among the dead letters, where it is ready, has had 0 attempts, and
says which channel it failed in and why.  Another mail is put in its place.

It prints:

    $ nsqlite peek mails.db mails.dead letters
    ID  ready        0              mails:send ValueError: no address b'bob'
    $ nsqlite pause mails.db mails send
    $ nsqlite put mails.db mails bob@example.org
    ID
    $ nsqlite unpause mails.db mails send
    sent: bob@example.org

Next: checksums.py
"""

import logging
import re
import subprocess
import sys
import tempfile

import nsqlite

ONCE = nsqlite.Retry(max_attempts=1)
sent: list[str] = []


def send(message: nsqlite.Message[bytes]) -> None:
    """Send a mail."""
    if b"@" not in message.body:
        raise ValueError("no address")
    sent.append(message.body.decode())


def shell(line: str) -> None:
    """Run a command in another process; show it and its answer."""
    command = [sys.executable, "-m", "nsqlite", *line.split()]
    answer = subprocess.check_output(command, text=True, cwd=directory)  # noqa: S603
    shown = re.sub(r"\b[0-9a-f]{16}\b", "ID", answer)
    print(f"$ nsqlite {line}\n{shown}", end="", flush=True)


# A program handles mails, and an operator types commands.  What does peek show of the mail that
# failed?
with tempfile.TemporaryDirectory() as directory:
    logging.getLogger("nsqlite").setLevel(logging.CRITICAL)  # meant to fail
    store = nsqlite.SQLite(f"{directory}/mails.db", control=True)
    with nsqlite.Broker(store=store) as broker:
        mails, dead = broker.topic("mails"), broker.topic("mails.dead")
        dead.channel("letters")
        todo = mails.channel("send")
        worker = nsqlite.Worker(todo, send, retry=ONCE, dead_letter=dead)
        mails.put(b"bob")
        with worker:
            worker.join()
            shell("peek mails.db mails.dead letters")
            shell("pause mails.db mails send")
            shell("put mails.db mails bob@example.org")
            shell("unpause mails.db mails send")
            worker.join()
    print("sent:", *sent)
