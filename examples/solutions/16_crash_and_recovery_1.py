"""A FIN is written up to 0.2 s later: what was finished just before the crash comes again.

It prints:

    the program was killed by signal 9
    comes again: order 1
"""

import subprocess
import sys
import tempfile

import nsqlite

PROGRAM = """
import os, signal, sys, nsqlite

broker = nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1]))
orders = broker.topic("orders")
billing = nsqlite.Consumer(orders.channel("billing"))
orders.put(b"order 1")
billing.get().fin()
os.kill(os.getpid(), signal.SIGKILL)  # without broker.flush()
"""

# The program finishes the order and is killed at once.
with tempfile.TemporaryDirectory() as directory:
    path = f"{directory}/orders.db"
    command = [sys.executable, "-c", PROGRAM, path]
    result = subprocess.run(command, check=False)  # noqa: S603 - our own
    print("the program was killed by signal", -result.returncode)
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        billing = nsqlite.Consumer(orders.channel("billing"))
        print("comes again:", billing.get(timeout=0).body.decode())
