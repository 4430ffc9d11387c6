"""Time-out, fixed: a consumer that needs longer touches its message.

`touch` gives a message its whole `msg_timeout` again, counted from now.  Touch it after each piece
of work, and let no piece take longer than the time-out.

Watch the second consumer get nothing, and the first one finish in time.  Only one line of the code
is new.

It prints:

     0 s  first gets the parcel, attempt 1
     5 s  first has packed 1 of 3 things; second gets nothing
    10 s  first has packed 2 of 3 things; second gets nothing
    15 s  first has packed 3 of 3 things; second gets nothing
    15 s  first finishes it

Next: 06_deferred.py
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
        message.touch()
        say(f"first has packed {packed} of 3 things; second gets {try_get(second)}")
    try:
        message.fin()
        say("first finishes it")
    except nsqlite.NotInFlight as late:
        say(f"first cannot finish it: {late.reason}")


if __name__ == "__main__":
    main()
