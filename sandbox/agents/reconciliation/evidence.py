"""What speaks for it that a payment settles an invoice, in points and words."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from difflib import SequenceMatcher

from reconciliation.records import Entry, Invoice

FEE_LEAST = Decimal("15.00")
FEE_SHARE = Decimal("0.005")
EARLY = timedelta(days=5)
LATE = timedelta(days=30)
SIMILAR_NAME = 0.75

_LEGAL_FORMS = re.compile(r"\b(gmbh|ag|kg|bv|nv|sarl|sl|srl|aps|ltd|oy|ab|lda|sp|z|zoo|o\.?o|ohg|ek)\b")
_YEAR = re.compile(r"(20)?2\d")


@dataclass(frozen=True)
class Evidence:
    """Points for one payment and one invoice.

    Attributes:
        kind: "exact", "with_fee", "part" or "over" (more than a fee can explain), by the amounts.
        by_reference: The payment names this invoice, perhaps mangled.
        by_supplier: It went to this invoice's supplier.
    """

    score: int
    kind: str
    by_reference: bool
    by_supplier: bool
    reasons: tuple[str, ...]


def weigh(entry: Entry, invoice: Invoice) -> Evidence:
    """Returns what connects ``entry`` with ``invoice``."""
    reference = _reference(entry.reference, invoice.number)
    supplier = _supplier(entry, invoice)
    amount, kind = _amount(entry.paid, invoice.amount)
    day = _day(entry, invoice)
    found = (reference, supplier, amount, day)
    return Evidence(
        score=sum(points for points, _ in found),
        kind=kind,
        by_reference=reference[0] > 0,
        by_supplier=supplier[0] > 0,
        reasons=tuple(words for points, words in found if points > 0),
    )


def _reference(text: str, number: str) -> tuple[int, str]:
    if _compact(number) in _compact(text):
        return 50, "reference names the invoice"
    groups = [group for group in _digit_groups(number) if not _YEAR.fullmatch(group)]
    if groups and sum(map(len, groups)) >= 2 and set(groups) <= set(_digit_groups(text)):
        return 35, "reference has the invoice's digits"
    return 0, ""


def _compact(text: str) -> str:
    """Letters and digits alone, with those that scanners and typists confuse made one."""
    return "".join(re.findall(r"[0-9A-Z]", text.upper())).translate(str.maketrans("OIL", "011"))


def _digit_groups(text: str) -> list[str]:
    return [group.lstrip("0") or "0" for group in re.findall(r"\d+", text)]


def _supplier(entry: Entry, invoice: Invoice) -> tuple[int, str]:
    if entry.iban:
        # An account that is not the supplier's is no evidence, whatever name stands beside it.
        return (25, "supplier's account") if entry.iban == invoice.iban else (0, "")
    left, right = _plain_name(entry.counterparty), _plain_name(invoice.supplier)
    if left and SequenceMatcher(None, left, right).ratio() >= SIMILAR_NAME:
        return 20, "supplier's name"
    return 0, ""


def _plain_name(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = _LEGAL_FORMS.sub(" ", ascii_name.replace(".", ""))
    return " ".join(re.findall(r"[a-z0-9]+", words))


def _amount(paid: Decimal, owed: Decimal) -> tuple[tuple[int, str], str]:
    if paid == owed:
        return (30, "amount is exact"), "exact"
    if owed < paid <= owed + max(FEE_LEAST, owed * FEE_SHARE):
        return (20, "amount with a bank fee"), "with_fee"
    if paid < owed:
        return (0, ""), "part"
    return (0, ""), "over"


def _day(entry: Entry, invoice: Invoice) -> tuple[int, str]:
    if invoice.issued - EARLY <= entry.booked <= invoice.due + LATE:
        return 10, "date fits"
    return -20, ""
