"""Characters as a reader counts them: a family emoji or a letter with its accents is one."""

from __future__ import annotations


def graphemes(text: str) -> int:
    """How many extended grapheme clusters (Unicode UAX 29) the text has."""
    if text.isascii() and "\r" not in text:
        return len(text)
    import regex  # publishing counts nothing, and is deployed without it

    return len(regex.findall(r"\X", text))
