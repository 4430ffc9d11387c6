"""What `python -m nsqlite` shows.

The rule: the core never imports anything from here.

Next: cli/demo.py
"""
