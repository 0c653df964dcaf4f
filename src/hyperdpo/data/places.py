"""Where a row of a table stands in the file that it was read from, for messages."""

from __future__ import annotations

from pathlib import Path

from hyperdpo.data.cache import table_kind
from hyperdpo.data.groups import GroupedTable


def row_place(table: GroupedTable, row: int, qid_column: str = "qid") -> str:
    """Where a row of a table stands: in its file, or, counted from 0, in what it was made from."""
    path = Path(table.source)
    return place_of_row(path, row, table, qid_column=qid_column) if path.is_file() else f"{table.source}: row {row}"


def place_of_row(path: Path, row: int, table: GroupedTable | None = None, *, qid_column: str = "qid") -> str:
    """``file:LINE`` for text, ``file:row N`` for Parquet. Text is read again up to that line.

    Args:
        path: the file.
        row: zero-based row of the table.
        table: the table, if its rows may have been sorted; None: the rows are in the order of the file.
        qid_column: as the file was read with.

    Raises:
        InputError: the file has no such row any more.
    """
    from hyperdpo.data import letor, table_files

    if table is not None and table.order is not None:
        row = int(table.order[row])
    kind = table_kind(path)
    if kind == "letor":
        return f"{path}:{letor.line_of_row(path, row)}"
    if kind == "csv":
        return table_files.CsvFile(path, qid_column).place(row)
    return table_files.ParquetFile(path).place(row)
