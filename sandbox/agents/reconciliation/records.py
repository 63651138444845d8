"""The two input files as values. Money is ``Decimal``; a wrong line is named, never guessed at."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

CENT = Decimal("0.01")


class InputError(ValueError):
    """A file is missing, or one of its lines cannot be read."""


@dataclass(frozen=True)
class Invoice:
    """A supplier's invoice that the company owes."""

    number: str
    supplier: str
    iban: str
    issued: date
    due: date
    amount: Decimal


@dataclass(frozen=True)
class Entry:
    """A line of the bank statement; ``amount`` is negative for what went out."""

    line: int
    booked: date
    counterparty: str
    iban: str
    amount: Decimal
    reference: str

    @property
    def paid(self) -> Decimal:
        """What left the account."""
        return -self.amount


@dataclass(frozen=True)
class Statement:
    """The account and its entries, in the file's order."""

    holder: str
    iban: str
    entries: tuple[Entry, ...]


def valid_iban(text: str) -> bool:
    """Checks length, characters and the ISO 13616 check digits."""
    if not (15 <= len(text) <= 34 and text.isascii() and text.isalnum() and text.isupper()):
        return False
    if not (text[:2].isalpha() and text[2:4].isdigit()):
        return False
    return int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


def read_invoices(path: Path) -> tuple[Invoice, ...]:
    """Reads the invoices.

    Raises:
        InputError: A column, a value or the file is missing or wrong, or a number occurs twice.
    """
    invoices: dict[str, Invoice] = {}
    columns = (
        "invoice_number",
        "supplier",
        "supplier_iban",
        "invoice_date",
        "due_date",
        "currency",
        "amount",
    )
    for line, row in _rows(path, columns):
        _only_euro(path, line, row["currency"])
        amount = _amount(path, line, row["amount"])
        if amount <= 0:
            raise InputError(f"{path.name}, line {line}: an invoice's amount is positive, not {amount}")
        invoice = Invoice(
            number=row["invoice_number"],
            supplier=row["supplier"],
            iban=_compact_iban(row["supplier_iban"]),
            issued=_day(path, line, row["invoice_date"]),
            due=_day(path, line, row["due_date"]),
            amount=amount,
        )
        if invoice.number in invoices:
            raise InputError(f"{path.name}, line {line}: invoice {invoice.number} occurs twice")
        invoices[invoice.number] = invoice
    return tuple(invoices.values())


def read_statement(path: Path) -> Statement:
    """Reads the bank statement of one account.

    Raises:
        InputError: As ``read_invoices``, or the lines are of several accounts.
    """
    columns = ("account_holder", "account_iban", "booking_date", "counterparty", "counterparty_iban", "currency",
               "amount", "reference")  # fmt: skip
    accounts: set[tuple[str, str]] = set()
    entries: list[Entry] = []
    for line, row in _rows(path, columns):
        _only_euro(path, line, row["currency"])
        accounts.add((row["account_holder"], _compact_iban(row["account_iban"])))
        entries.append(
            Entry(
                line=line,
                booked=_day(path, line, row["booking_date"]),
                counterparty=row["counterparty"],
                iban=_compact_iban(row["counterparty_iban"]),
                amount=_amount(path, line, row["amount"]),
                reference=row["reference"],
            )
        )
    if len(accounts) != 1:
        raise InputError(f"{path.name}: expected the entries of one account, found {len(accounts)}")
    holder, iban = accounts.pop()
    return Statement(holder, iban, tuple(entries))


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path.name}: no column {', '.join(missing)}")
            rows: list[tuple[int, dict[str, str]]] = []
            for row in reader:
                if any(row[name] is None for name in columns):
                    raise InputError(f"{path.name}, line {reader.line_num}: fewer values than columns")
                rows.append((reader.line_num, {name: row[name].strip() for name in columns}))
            return rows
    except OSError as problem:
        raise InputError(f"{path.name}: {problem.strerror}") from problem
    except (UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path.name}: not a CSV file in UTF-8: {problem}") from problem


def _compact_iban(text: str) -> str:
    return text.replace(" ", "").upper()


def _only_euro(path: Path, line: int, currency: str) -> None:
    if currency != "EUR":
        raise InputError(f"{path.name}, line {line}: only EUR can be reconciled, not {currency!r}")


def _day(path: Path, line: int, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as problem:
        raise InputError(f"{path.name}, line {line}: {text!r} is no date (YYYY-MM-DD)") from problem


def _amount(path: Path, line: int, text: str) -> Decimal:
    try:
        amount = Decimal(text)
        if amount.is_finite() and amount == amount.quantize(CENT):
            return amount.quantize(CENT)
    except InvalidOperation:
        pass
    raise InputError(f"{path.name}, line {line}: {text!r} is no amount with two decimals")
