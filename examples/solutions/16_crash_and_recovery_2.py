"""A delay ends when it was to end: a restart does not change that moment.

It prints:

    the program was killed by signal 9
    ready 0, deferred 1
    due in an hour: True
"""

import subprocess
import sys
import tempfile

import nsqlite

PROGRAM = """
import os, signal, sys, nsqlite

broker = nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1]))
orders = broker.topic("orders")
orders.channel("billing")
orders.put(b"order 1", delay=3600)
os.kill(os.getpid(), signal.SIGKILL)
"""

# The program puts an order that is to come in an hour, and is killed.
with tempfile.TemporaryDirectory() as directory:
    path = f"{directory}/orders.db"
    command = [sys.executable, "-c", PROGRAM, path]
    result = subprocess.run(command, check=False)  # noqa: S603 - our own
    print("the program was killed by signal", -result.returncode)
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        billing = broker.topic("orders").channel("billing")
        print(f"ready {billing.depth}, deferred {billing.deferred_count}")
        due_in = billing.deferred()[0].due_in or 0
        print("due in an hour:", 3000 < due_in <= 3600)
