"""What stands for itself and cannot be copied.

Next: options.py
"""

from typing import NoReturn


class Unique:
    """An object that other threads know, too: a copy would be something else.

    Its kin can neither be copied nor pickled.
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse `copy.copy`, `copy.deepcopy` and `pickle`.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self!r} cannot be copied or pickled: pass it on, or what is in it")
