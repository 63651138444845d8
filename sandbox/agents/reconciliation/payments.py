"""The payment file for open invoices: ISO 20022 pain.001.001.09 (customer credit transfer initiation), SEPA."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

from reconciliation.records import Invoice, Statement, valid_iban

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
_GERMAN = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})


@dataclass(frozen=True)
class PaymentOrder:
    """What one payment file asks the bank to do."""

    message_id: str
    execution: date
    invoices: tuple[Invoice, ...]
    held_back: tuple[tuple[Invoice, str], ...]

    @property
    def total(self) -> Decimal:
        """The control sum."""
        return sum((invoice.amount for invoice in self.invoices), Decimal("0.00"))


def order_for(statement: Statement, invoices: list[Invoice], execution: date | None) -> PaymentOrder:
    """Decides what is paid; an invoice with a wrong IBAN is held back with the reason.

    Args:
        statement: Names the account that pays.
        invoices: The open ones.
        execution: When the bank is to pay; None for the first weekday after the statement's last entry.
    """
    held = [
        (invoice, "the supplier's IBAN has wrong check digits") for invoice in invoices if not valid_iban(invoice.iban)
    ]
    payable = tuple(sorted((i for i in invoices if valid_iban(i.iban)), key=lambda i: (i.due, i.number)))
    day = execution or _next_weekday(max(entry.booked for entry in statement.entries))
    # By content, so that the bank recognises the same file handed in twice.
    content = "\n".join([statement.iban, day.isoformat(), *(f"{i.number} {i.iban} {i.amount}" for i in payable)])
    message_id = "AWGP-" + hashlib.sha256(content.encode()).hexdigest()[:24].upper()
    return PaymentOrder(message_id, day, payable, tuple(held))


def _next_weekday(day: date) -> date:
    day += timedelta(days=1)
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return day


def write_payment_file(path: Path, order: PaymentOrder, statement: Statement, now: datetime) -> None:
    """Writes the file; elements stand in the schema's order. ``now`` has a time zone."""
    ET.register_namespace("", NAMESPACE)
    document = ET.Element(_q("Document"))
    root = _add(document, "CstmrCdtTrfInitn")
    header = _add(root, "GrpHdr")
    _add(header, "MsgId", order.message_id)
    _add(header, "CreDtTm", now.isoformat(timespec="seconds"))
    _add(header, "NbOfTxs", str(len(order.invoices)))
    _add(header, "CtrlSum", str(order.total))
    _add(_add(header, "InitgPty"), "Nm", _sepa(statement.holder, 70))
    information = _payment_information(root, order, statement)
    for invoice in order.invoices:
        _transaction(information, invoice)
    ET.indent(document)
    ET.ElementTree(document).write(path, encoding="UTF-8", xml_declaration=True)


def _payment_information(root: ET.Element, order: PaymentOrder, statement: Statement) -> ET.Element:
    information = _add(root, "PmtInf")
    _add(information, "PmtInfId", f"{order.message_id}-1")
    _add(information, "PmtMtd", "TRF")
    # Single bookings: each payment shows on the next statement, where it can be reconciled.
    _add(information, "BtchBookg", "false")
    _add(information, "NbOfTxs", str(len(order.invoices)))
    _add(information, "CtrlSum", str(order.total))
    _add(_add(_add(information, "PmtTpInf"), "SvcLvl"), "Cd", "SEPA")
    _add(_add(information, "ReqdExctnDt"), "Dt", order.execution.isoformat())
    _add(_add(information, "Dbtr"), "Nm", _sepa(statement.holder, 70))
    _add(_add(_add(information, "DbtrAcct"), "Id"), "IBAN", statement.iban)
    # SEPA is IBAN-only; the element is required all the same.
    _add(_add(_add(_add(information, "DbtrAgt"), "FinInstnId"), "Othr"), "Id", "NOTPROVIDED")
    _add(information, "ChrgBr", "SLEV")
    return information


def _transaction(information: ET.Element, invoice: Invoice) -> None:
    transaction = _add(information, "CdtTrfTxInf")
    _add(_add(transaction, "PmtId"), "EndToEndId", _sepa(invoice.number, 35))
    amount = _add(_add(transaction, "Amt"), "InstdAmt", str(invoice.amount))
    amount.set("Ccy", "EUR")
    _add(_add(transaction, "Cdtr"), "Nm", _sepa(invoice.supplier, 70))
    _add(_add(_add(transaction, "CdtrAcct"), "Id"), "IBAN", invoice.iban)
    _add(_add(transaction, "RmtInf"), "Ustrd", _sepa(f"{invoice.number} {invoice.issued.isoformat()}", 140))


def _q(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _add(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    child = ET.SubElement(parent, _q(name))
    child.text = text
    return child


def _sepa(text: str, longest: int) -> str:
    """Reduces text to the characters every SEPA bank takes (EPC217-08)."""
    plain = unicodedata.normalize("NFKD", text.translate(_GERMAN)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9/?:().,'+ -]", " ", plain)[:longest].strip() or "NOTPROVIDED"
