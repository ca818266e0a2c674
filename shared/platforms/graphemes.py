"""Characters as a reader sees them: a family emoji or a letter with its accents is one."""

from __future__ import annotations


def graphemes(text: str) -> int:
    """How many extended grapheme clusters (Unicode UAX 29) the text has."""
    return len(text) if text.isascii() and "\r" not in text else len(clusters(text))


def clusters(text: str) -> list[str]:
    """The extended grapheme clusters of the text."""
    import regex  # publishing counts nothing, and is deployed without it

    found: list[str] = regex.findall(r"\X", text)
    return found


def is_emoji(cluster: str) -> bool:
    """Whether a grapheme cluster is shown as a picture: flags and keycaps are, too."""
    import regex

    pattern = r"\p{Extended_Pictographic}|\p{Regional_Indicator}|\N{COMBINING ENCLOSING KEYCAP}"
    return regex.search(pattern, cluster) is not None
