"""Deferred: a message is delivered later.

`put` with a delay publishes a message that becomes ready after so many seconds; `req` with a delay
does the same for one that is being worked on.

Watch the deferred ones.  A deferred message is neither ready nor in flight, so the depth does not
count it and nobody gets it, until it is due.

It prints:

    0.0 s  depth 1, deferred 2
    0.0 s  got tea, attempt 1: not now
    2.5 s  got milk, attempt 1
    4.0 s  got tea, attempt 2
    7.5 s  got sugar, attempt 1

Try it:

1. Defer two messages to the same moment.  In which order do they come?
2. Defer a message in a paused channel.  Is it ready when its time is over?  Does anybody get it?

Next: 10_pause.py
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock)
orders = broker.topic("orders")
kitchen = orders.channel("kitchen")
cook = nsqlite.Consumer(kitchen, name="cook")


def say(text: str) -> None:
    """Print something with the time."""
    print(f"{clock.time():.1f} s  {text}")


def finish(message: nsqlite.Message[str]) -> None:
    """Finish a message and say which."""
    say(f"got {message.body}, attempt {message.attempts}")
    message.fin()


# Three messages, two of them for later.  How deep is the channel?
orders.put("sugar", delay=7.5)
orders.put("milk", delay=2.5)
orders.put("tea")
say(f"depth {kitchen.depth}, deferred {kitchen.deferred_count}")

# The cook gets the tea, but has no time for it before 4 s have passed.
tea = cook.get()
say(f"got {tea.body}, attempt {tea.attempts}: not now")
tea.req(delay=4)

# All three wait.  The clock goes on until one of them is due.  Which one?
clock.advance_to_next()
finish(cook.get())

# And the next one?  Which attempt is it?
clock.advance_to_next()
finish(cook.get())

# The last one is the first that was published.
clock.advance_to_next()
finish(cook.get())
