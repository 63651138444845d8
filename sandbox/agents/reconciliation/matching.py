"""Finds which payment settles which invoice: best evidence first, each used once."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from reconciliation.evidence import Evidence, weigh
from reconciliation.records import Entry, Invoice

ENOUGH = 60
"""Supplier, exact amount and date make 65; a named invoice with the right amount from an unknown account 90."""


@dataclass(frozen=True)
class Match:
    """A payment and the invoice it settles, wholly or in part."""

    invoice: Invoice
    entry: Entry
    evidence: Evidence

    @property
    def fee(self) -> Decimal:
        """What the bank took on top; zero for a part payment."""
        return max(self.entry.paid - self.invoice.amount, Decimal("0.00"))

    @property
    def rest(self) -> Decimal:
        """What is still owed."""
        return max(self.invoice.amount - self.entry.paid, Decimal("0.00"))


@dataclass
class Reconciliation:
    """Every invoice and every entry stands in exactly one of these lists."""

    settled: list[Match] = field(default_factory=list[Match])
    partial: list[Match] = field(default_factory=list[Match])
    unclear: list[Match] = field(default_factory=list[Match])
    """Named by a payment that is larger than a fee explains: neither settled nor to be paid again."""
    duplicates: list[Match] = field(default_factory=list[Match])
    open_invoices: list[Invoice] = field(default_factory=list[Invoice])
    other_payments: list[Entry] = field(default_factory=list[Entry])
    incoming: list[Entry] = field(default_factory=list[Entry])


def reconcile(invoices: tuple[Invoice, ...], entries: tuple[Entry, ...]) -> Reconciliation:
    """Matches entries with invoices.

    An invoice is settled by one payment. What is left over is looked at again: a payment that fits a settled invoice
    is a duplicate; one that names an open invoice is a part payment when it is smaller, unclear when it is larger.
    """
    result = Reconciliation(incoming=[entry for entry in entries if entry.amount >= 0])
    outgoing = [entry for entry in entries if entry.amount < 0]
    candidates = _candidates(invoices, outgoing)
    result.settled = _take_best([match for match in candidates if match.evidence.kind in ("exact", "with_fee")])
    paid = {match.invoice.number for match in result.settled}
    used = {match.entry.line for match in result.settled}
    for kind, found in (("part", result.partial), ("over", result.unclear)):
        found += _take_best([match for match in candidates if _is_named(match, kind, paid, used)])
        paid |= {match.invoice.number for match in found}
        used |= {match.entry.line for match in found}

    result.duplicates = _duplicates(candidates, result.settled, used)
    used |= {match.entry.line for match in result.duplicates}
    _earliest_settles(result)
    result.open_invoices = [invoice for invoice in invoices if invoice.number not in paid]
    result.other_payments = [entry for entry in outgoing if entry.line not in used]
    return result


def _candidates(invoices: tuple[Invoice, ...], outgoing: list[Entry]) -> list[Match]:
    pairs = [Match(invoice, entry, weigh(entry, invoice)) for entry in outgoing for invoice in invoices]
    strong = [match for match in pairs if match.evidence.score >= ENOUGH]
    return sorted(strong, key=_rank)


def _rank(match: Match) -> tuple[int, int, int, str]:
    # Equal evidence (a rent of each month): the payment nearest to the due date.
    days = abs((match.entry.booked - match.invoice.due).days)
    return -match.evidence.score, days, match.entry.line, match.invoice.number


def _take_best(candidates: list[Match]) -> list[Match]:
    taken: list[Match] = []
    invoices: set[str] = set()
    entries: set[int] = set()
    for match in candidates:
        if match.invoice.number not in invoices and match.entry.line not in entries:
            taken.append(match)
            invoices.add(match.invoice.number)
            entries.add(match.entry.line)
    return sorted(taken, key=lambda match: match.entry.line)


def _is_named(match: Match, kind: str, paid: set[str], used: set[int]) -> bool:
    # A wrong amount proves nothing by itself: the invoice must be named and the supplier right.
    evidence = match.evidence
    named = evidence.kind == kind and evidence.by_reference and evidence.by_supplier
    return named and match.invoice.number not in paid and match.entry.line not in used


def _duplicates(candidates: list[Match], settled: list[Match], used: set[int]) -> list[Match]:
    numbers = {match.invoice.number for match in settled}
    found: dict[int, Match] = {}
    for match in candidates:
        again = match.evidence.kind in ("exact", "with_fee") and match.evidence.by_reference
        if again and match.invoice.number in numbers and match.entry.line not in used:
            found.setdefault(match.entry.line, match)
    return [found[line] for line in sorted(found)]


def _earliest_settles(result: Reconciliation) -> None:
    """Of two payments of one invoice the earlier one settled it, whichever names it better."""
    for index, duplicate in enumerate(result.duplicates):
        for place, match in enumerate(result.settled):
            if match.invoice == duplicate.invoice and duplicate.entry.booked < match.entry.booked:
                result.settled[place], result.duplicates[index] = duplicate, match
                break
