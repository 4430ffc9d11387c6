"""Workers: what they decide, how they run in threads and tasks, and how they end."""
