"""The version, in one place.

Next: errors.py
"""

from typing import Final

__version__: Final = "0.1.0"
"""The version of the package."""
