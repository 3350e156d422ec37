"""Rows of a CSV that somebody brings: read whole, or refused in a sentence."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zlib
from collections import Counter
from numbers import Integral
from pathlib import Path

OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
SEPARATORS = {";": "';'", "\t": "'\\t'", "|": "'|'"}
# What begins a file that is no text: what it is, and what to do.
_SAVE = "open it where it was made and save it as CSV in UTF-8"
BINARY = {
    b"PK\x03\x04": ("a workbook or an archive", _SAVE),
    b"\xd0\xcf\x11\xe0": ("a workbook", _SAVE),
    b"PAR1": ("a Parquet file", _SAVE),
    b"%PDF": ("a PDF", _SAVE),
    b"SQLite": ("a database", _SAVE),
    b"ARROW1": ("a Feather file", _SAVE),
    b"\x89HDF": ("an HDF5 file", _SAVE),
    b"\x93NUMPY": ("an array of NumPy", _SAVE),
    b"\x80\x04": ("a pickle", _SAVE),
    b"\x89PNG": ("an image", "give a file of texts"),
    b"\xff\xd8\xff": ("an image", "give a file of texts"),
    b"\x1f\x8b": ("compressed by gzip", "rename it to end in .csv.gz"),
}

# A text, its label, and the line of the file that it ends on.
Row = tuple[str, str, int]


def read_rows(
    path: Path, text: str | int, label: str | int, sep: str | None, encoding: str | None
) -> list[Row]:
    """Return the texts and labels of a CSV, none of them empty, or say what is wrong."""
    if sep is not None and (not isinstance(sep, str) or len(sep) != 1):
        raise ValueError(f"sep is {sep!r}; give one character, such as ';' or '\\t'.")
    text, label = (int(one) if isinstance(one, Integral) else one for one in (text, label))
    if isinstance(text, int) != isinstance(label, int) or text == label:
        raise ValueError(
            f"text is {text!r} and label {label!r}; give two columns, both as names, or, for a "
            "file without a header line, both as positions from 0."
        )
    content = _decode(path, encoding)
    other = next((shown for mark, shown in SEPARATORS.items() if mark in content[:1000]), None)
    hint = (
        f" If its columns are separated by {other}, give sep={other}." if not sep and other else ""
    )
    records = _split_rows(path, content, sep or ",")
    if not records:
        raise ValueError(f"{path} holds no rows; give it some texts and labels.")
    header = None if isinstance(text, int) else [name.strip() for name in records.pop(0)[0]]
    width = (
        len(header) if header else Counter(len(fields) for fields, _ in records).most_common()[0][0]
    )
    places = _find_columns(path, (text, label), header, width, hint)
    if not records:
        raise ValueError(f"{path} holds no rows; give it some texts and labels.")
    _check_widths(path, records, width, hint)
    _check_quotes(path, records, places[1], sep or ",")
    rows = [tuple(" ".join(fields[place].split()) for place in places) for fields, _ in records]
    lines = [line for _, line in records]
    empty = [index for index, row in enumerate(rows) if not all(row)]
    if empty:
        raise ValueError(
            f"{len(empty)} rows of {path} have no text or no label (the first is row "
            f"{empty[0] + 1} of the data, line {lines[empty[0]]}); fill them in or remove them."
        )
    return [(*row, line) for row, line in zip(rows, lines, strict=True)]


def _decode(path: Path, encoding: str | None) -> str:
    """Return what a file, which may be compressed, holds as text."""
    if encoding is not None and not isinstance(encoding, str):
        raise ValueError(f'encoding is {encoding!r}; give its name, such as "utf-8" or "cp1252".')
    content = _read(path)
    wide = _guess_wide(content[:1000])
    # Without a mark at its start, Python takes UTF-16 for little-endian.
    fits = encoding == "utf-16" and wide in ("utf-16", "utf-16-le")
    if wide and not fits and encoding in (None, "utf-8", "utf-16"):
        raise ValueError(
            f"{path} is not {(encoding or 'utf-8').upper()} but looks like {wide.upper()}; give "
            f'encoding="{wide}".'
        )
    try:
        # Only "utf-8-sig" and "utf-16" take the mark off that some programs begin a file with.
        decoded = content.decode(encoding or "utf-8").removeprefix("\ufeff")
    except LookupError as error:
        raise ValueError(
            f'There is no encoding {encoding!r}; choose one such as "utf-8" or "cp1252".'
        ) from error
    except UnicodeError as error:
        if b"\0" not in content:  # else it is no text in any of these
            line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
            raise ValueError(
                f"{path} is not {encoding or 'UTF-8'} (line {line}); give the encoding that it was "
                'saved in: encoding="cp1252" is usual for Western Europe on Windows, "cp1251" or '
                '"koi8-r" for Cyrillic, "utf-16" for Excel\'s Unicode text.'
            ) from error
        decoded = content.decode("latin-1")
    if "\0" in decoded:
        line = decoded.count("\n", 0, decoded.index("\0")) + 1
        raise ValueError(
            f"Line {line} of {path} holds a zero byte, which no text has: the file is damaged or "
            "no CSV, or encoding= is wrong."
        )
    if encoding:
        _check_encoding(path, content, decoded, encoding)
    return decoded


def _read(path: Path) -> bytes:
    """Return the bytes of a file that may be compressed, unless they are of another kind."""
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder; give the path of the CSV in it.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path.absolute()}; check the path of the CSV.")
    try:
        with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as CSV: {str(error).strip()}.") from error
    for magic, (kind, remedy) in BINARY.items():
        if content.startswith(magic):
            raise ValueError(f"{path} cannot be read as CSV: it is {kind}; {remedy}.")
    if re.match(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"', content):
        raise ValueError(
            f"{path} cannot be read as CSV: it is JSON; read it with pandas.read_json (lines=True "
            "for a record a line) and write it with to_csv(index=False)."
        )
    return content


def _guess_wide(start: bytes) -> str | None:
    """Return the encoding of two or four bytes a letter that a file begins in, or None."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Of Latin letters in UTF-16 every second byte is zero, in UTF-32 three of four.
    even, odd = start[::2].count(0), start[1::2].count(0)
    if even + odd > 0.7 * len(start):
        return "utf-32-le" if start[0] else "utf-32-be"
    if even + odd > len(start) / 4 and not (even and odd):
        return "utf-16-be" if even else "utf-16-le"
    return None


def _check_encoding(path: Path, content: bytes, decoded: str, encoding: str) -> None:
    """Refuse an encoding of single bytes, which takes any file, for one of another encoding."""
    if len(decoded) != len(content) or content.isascii():
        return
    try:
        content.decode("utf-8")
    except UnicodeError:
        pass
    else:
        raise ValueError(f"{path} is not {encoding} but UTF-8: leave encoding= out.")
    latin = codecs.lookup(encoding).name in ("iso8859-1", "iso8859-15")
    if latin and (strange := re.search("[\x80-\x9f]", decoded)):
        line = decoded.count("\n", 0, strange.start()) + 1
        raise ValueError(
            f"Line {line} of {path} holds a control character in {encoding}, which is a quotation "
            'mark, a dash or a euro on Windows: give encoding="cp1252".'
        )


def _split_rows(path: Path, content: str, sep: str) -> list[tuple[list[str], int]]:
    """Return the fields and the last line of every row that holds anything."""
    # Strict: after a stray quote csv and pandas would go on and take many rows for one field.
    reader = csv.reader(
        io.StringIO(content, newline=""), delimiter=sep, strict=True, skipinitialspace=sep != "\t"
    )
    rows = []
    # A long text is none of its mistakes, and what has no partner is found at the end too.
    limit = csv.field_size_limit(2**31 - 1)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((fields, reader.line_num))
    except csv.Error as error:
        line = rows[-1][1] + 1 if rows else 1
        raise ValueError(
            f"{path} cannot be read as CSV from line {line} on: a quotation mark has no partner "
            f"({error}); close it, or write a mark inside a quoted field twice."
        ) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _find_columns(
    path: Path, columns: tuple, header: list[str] | None, width: int, hint: str
) -> list[int]:
    known = range(width) if header is None else header
    for column in columns:
        if column not in known:
            what = ", ".join(map(repr, list(known)[:20]))
            names = " A file without a header line takes positions: text=0." if header else ""
            raise ValueError(
                f"{path} has no column {column!r}; its columns are {what}.{hint}{names}"
            )
        if header and header.count(column) > 1:
            raise ValueError(f"{path} has two columns {column!r}; rename one of them.")
    return [column if header is None else header.index(column) for column in columns]


def _check_widths(path: Path, records: list[tuple[list[str], int]], width: int, hint: str) -> None:
    """Refuse rows with more or fewer fields than the header; empty ones at the end do not count."""
    odd = [
        (len(fields), line)
        for fields, line in records
        if len(fields) < width or any(field.strip() for field in fields[width:])
    ]
    if odd:
        found, line = odd[0]
        raise ValueError(
            f"{len(odd)} rows of {path} do not have {width} columns (the first, line {line}, has "
            f"{found}); put a text that holds the separator between quotation marks.{hint}"
        )


def _check_quotes(path: Path, records: list[tuple[list[str], int]], place: int, sep: str) -> None:
    """Refuse a field of several lines of which one looks like a whole row of the file."""
    labels = {fields[place].strip() for fields, _ in records}
    for fields, line in records:
        for inner in (part for field in fields if "\n" in field for part in field.splitlines()):
            cells = inner.split(sep)
            if len(cells) == len(fields) and cells[place].strip() in labels:
                raise ValueError(
                    f"A field of {path} that ends on line {line} holds {inner.strip()!r}, which "
                    "looks like a row of its own; close the quotation mark before it."
                )
