"""For tests: a clock that is moved by hand.

Next: testing/manualclock.py
"""

from nsqlite.testing.manualclock import ManualClock

__all__ = ["ManualClock"]
