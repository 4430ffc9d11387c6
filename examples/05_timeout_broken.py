"""Time-out, broken: work that takes longer than the time-out is done twice.

A message that is not answered within `msg_timeout` seconds is delivered again: its consumer may be
dead.  This one is only slow.  (The clock is moved by hand, so nobody really waits.)

Watch two consumers pack the same parcel, and the first one's `fin` come too late.

It prints:

     0 s  first gets the parcel, attempt 1
     5 s  first has packed 1 of 3 things; second gets nothing
    10 s  first has packed 2 of 3 things; second gets the parcel, attempt 2
    15 s  first has packed 3 of 3 things; second gets nothing
    15 s  first cannot finish it: timed out

Next: 05_timeout_fixed.py
"""

import nsqlite
from nsqlite.testing import ManualClock


def try_get(consumer: nsqlite.Consumer[str]) -> str:
    """Get a message if one is ready; say which."""
    try:
        message = consumer.get(timeout=0)
    except nsqlite.Empty:
        return "nothing"
    return f"the {message.body}, attempt {message.attempts}"


def main() -> None:
    """Work for 15 seconds on a message that times out after 10."""
    clock = ManualClock(start=0)
    topic: nsqlite.Topic[str] = nsqlite.Topic("parcels", clock=clock, msg_timeout=10)
    channel = topic.channel("packing")
    first, second = nsqlite.Consumer(channel), nsqlite.Consumer(channel)

    def say(text: str) -> None:
        print(f"{clock.time():2.0f} s  {text}")

    topic.put("parcel")
    message = first.get()
    say(f"first gets the {message.body}, attempt {message.attempts}")
    for packed in 1, 2, 3:
        clock.advance(5)
        say(f"first has packed {packed} of 3 things; second gets {try_get(second)}")
    try:
        message.fin()
        say("first finishes it")
    except nsqlite.NotInFlight as late:
        say(f"first cannot finish it: {late.reason}")


if __name__ == "__main__":
    main()
