"""Requeue and retry: failed work is delivered again.

`req` gives a message back: at once, to the end of the queue, or after a delay.  When the `with`
block of a message raises, the message is requeued too.  `attempts` counts its deliveries.

Watch "seven", which can never succeed.  It would come again for ever; so the consumer looks at the
attempts, waits longer each time, and gives up in the end: it finishes it without the work.

It prints:

    0 s  'seven', attempt 1: failed
    0 s  twice '8' is 16
    1 s  'seven', attempt 2: failed
    3 s  'seven', attempt 3: given up

Try it:

1. Requeue without any delay.  In which order do the messages come, and at what times?
2. Publish "7" in words again, but let the work succeed at its second attempt.  What is counted?

Next: 09_deferred.py
"""

import nsqlite
from nsqlite.testing import FakeBroker, ManualClock

clock = ManualClock(start=0)
broker = FakeBroker(clock=clock)
numbers = broker.topic("numbers")
doubles = numbers.channel("doubles")
ann = nsqlite.Consumer(doubles, name="ann")


def work(message: nsqlite.Message[str]) -> None:
    """Double a number; try again after 1 s, 2 s, and then give up."""
    now, body = f"{clock.time():.0f} s", message.body
    failure = f"{now}  {body!r}, attempt {message.attempts}"
    try:
        print(f"{now}  twice {body!r} is {2 * int(body)}")
        message.fin()
    except ValueError:
        if message.attempts < 3:
            message.req(delay=2 ** (message.attempts - 1))
            print(f"{failure}: failed")
        else:
            message.fin()
            print(f"{failure}: given up")


# Two messages.  The first one is no number.
numbers.put_many(["seven", "8"])

# Ann tries the first one, and it fails.  Where is it now?
work(ann.get())

# It waits alone.  Does anybody have to wait for it?
work(ann.get())

# A second later its delay is over, and it fails again.  How long does it wait now?
clock.advance_to_next()
work(ann.get())

# The third attempt is the last one.
clock.advance_to_next()
work(ann.get())
