"""The result for people (Markdown) and for programs (JSON). Amounts in JSON are strings: no rounding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from reconciliation.matching import Match, Reconciliation
from reconciliation.payments import PaymentOrder
from reconciliation.records import Entry, Invoice, Statement

Json = dict[str, object]


def as_json(statement: Statement, result: Reconciliation, order: PaymentOrder | None) -> Json:
    """Returns the machine-readable result."""
    return {
        "account": {"holder": statement.holder, "iban": statement.iban},
        "currency": "EUR",
        "summary": summary(result),
        "settled": [_match(match) for match in result.settled],
        "partial": [_match(match) | {"open": str(match.rest)} for match in result.partial],
        "unclear": [_match(match) for match in result.unclear],
        "duplicates": [_match(match) | {"to_reclaim": str(match.entry.paid)} for match in result.duplicates],
        "open_invoices": [_invoice(invoice) for invoice in result.open_invoices],
        "other_payments": [_entry(entry) for entry in result.other_payments],
        "incoming": [_entry(entry) for entry in result.incoming],
        "payment_file": _payment_file(order) if order else None,
    }


def summary(result: Reconciliation) -> Json:
    """Returns counts and sums."""
    return {
        "invoices": len(result.settled) + len(result.partial) + len(result.unclear) + len(result.open_invoices),
        "settled": len(result.settled),
        "partial": len(result.partial),
        "unclear": len(result.unclear),
        "duplicates": len(result.duplicates),
        "open": len(result.open_invoices),
        "other_payments": len(result.other_payments),
        "incoming": len(result.incoming),
        "fees_total": str(_sum(match.fee for match in result.settled)),
        "open_total": str(_sum(invoice.amount for invoice in result.open_invoices)),
        "partial_open_total": str(_sum(match.rest for match in result.partial)),
        "to_reclaim_total": str(_sum(match.entry.paid for match in result.duplicates)),
    }


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal("0.00"))


def _match(match: Match) -> Json:
    return {
        "invoice": match.invoice.number,
        "supplier": match.invoice.supplier,
        "statement_line": match.entry.line,
        "booked": match.entry.booked.isoformat(),
        "days_after_due": (match.entry.booked - match.invoice.due).days,
        "owed": str(match.invoice.amount),
        "paid": str(match.entry.paid),
        "fee": str(match.fee),
        "score": match.evidence.score,
        "because": list(match.evidence.reasons),
    }


def _invoice(invoice: Invoice) -> Json:
    return {
        "invoice": invoice.number,
        "supplier": invoice.supplier,
        "due": invoice.due.isoformat(),
        "amount": str(invoice.amount),
    }


def _entry(entry: Entry) -> Json:
    return {
        "statement_line": entry.line,
        "booked": entry.booked.isoformat(),
        "counterparty": entry.counterparty,
        "amount": str(entry.amount),
        "reference": entry.reference,
    }


def _payment_file(order: PaymentOrder) -> Json:
    return {
        "path": "payments.xml",
        "message_id": order.message_id,
        "execution_date": order.execution.isoformat(),
        "transactions": len(order.invoices),
        "control_sum": str(order.total),
        "invoices": [invoice.number for invoice in order.invoices],
        "held_back": [{"invoice": invoice.number, "reason": reason} for invoice, reason in order.held_back],
    }


def as_markdown(statement: Statement, result: Reconciliation, order: PaymentOrder | None) -> str:
    """Returns the report for people; what needs a decision stands first."""
    counts = summary(result)
    parts = [
        "# Reconciliation of supplier invoices",
        f"Account of {_cell(statement.holder)}, {statement.iban}; {len(statement.entries)} entries.",
        f"Of **{counts['invoices']}** invoices **{counts['settled']}** are settled (bank fees {counts['fees_total']} "
        f"EUR), **{counts['partial']}** in part, **{counts['open']}** open ({counts['open_total']} EUR).",
        *_decisions(result),
        _section(
            "Open invoices",
            ("Invoice", "Supplier", "Due", "EUR"),
            [(i.number, i.supplier, i.due, i.amount) for i in result.open_invoices],
        ),
        _section(
            "Settled",
            ("Invoice", "Supplier", "Booked", "Paid", "Fee", "Because"),
            [(*_paid(m), m.fee, ", ".join(m.evidence.reasons)) for m in result.settled],
        ),
        _section(
            "Payments without an invoice",
            ("Booked", "To", "EUR", "Reference"),
            [(e.booked, e.counterparty, e.paid, e.reference) for e in result.other_payments],
        ),
        *_order(order),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _decisions(result: Reconciliation) -> list[str]:
    return [
        _section(
            "Needs a decision: paid twice",
            ("Invoice", "Supplier", "Booked", "Paid again"),
            [_paid(m) for m in result.duplicates],
        ),
        _section(
            "Needs a decision: paid in part",
            ("Invoice", "Supplier", "Booked", "Paid", "Owed", "Open"),
            [(*_paid(m), m.invoice.amount, m.rest) for m in result.partial],
        ),
        _section(
            "Needs a decision: paid more than owed",
            ("Invoice", "Supplier", "Booked", "Paid", "Owed"),
            [(*_paid(m), m.invoice.amount) for m in result.unclear],
        ),
    ]


def _order(order: PaymentOrder | None) -> list[str]:
    if order is None:
        return []
    text = (
        f"## Payment file\n\n`payments.xml` (pain.001.001.09), message {order.message_id}: "
        f"{len(order.invoices)} transfers, {order.total} EUR, on {order.execution}."
    )
    return [text, *(f"- held back: {_cell(invoice.number)}, {reason}" for invoice, reason in order.held_back)]


def _paid(match: Match) -> tuple[object, ...]:
    return match.invoice.number, match.invoice.supplier, match.entry.booked, match.entry.paid


def _section(title: str, heads: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    if not rows:
        return ""
    lines = [f"## {title}", "", _row(heads), _row("---" for _ in heads)]
    return "\n".join([*lines, *map(_row, rows)])


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(_cell(str(cell)) for cell in cells) + " |"


def _cell(text: str) -> str:
    # Names and references come from outside: they may not break the table or bring markup of their own.
    return "".join("\\" + c if c in "\\`*_[]<>|#" else c for c in text.replace("\n", " "))
