"""Reconciles a bank statement with supplier invoices.

Reads ``bank_statement.csv`` and ``invoices.csv`` from ``AWGP_INPUT_DIR``, writes ``report.md`` and ``result.json``
to ``AWGP_OUTPUT_DIR``. With ``--prepare-payments``, or ``{"prepare_payments": true}`` in ``AWGP_PARAMETERS``, it also
writes ``payments.xml``, an ISO 20022 payment file for the invoices that are open. It moves no money: a bank does, with
that file. Exit 2 means that the input cannot be used; stderr says why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from reconciliation.matching import Reconciliation, reconcile
from reconciliation.payments import PaymentOrder, order_for, write_payment_file
from reconciliation.records import InputError, Invoice, Statement, read_invoices, read_statement, valid_iban
from reconciliation.report import as_json, as_markdown


@dataclass(frozen=True)
class Job:
    """What was asked for."""

    inputs: Path
    outputs: Path
    prepare_payments: bool
    execution: date | None


def read_job(arguments: list[str], environment: dict[str, str]) -> Job:
    """Returns the job from the command line and the environment.

    Raises:
        InputError: The parameters cannot be read.
    """
    parser = argparse.ArgumentParser(description="Reconcile a bank statement with supplier invoices.")
    parser.add_argument("--prepare-payments", action="store_true", help="write payments.xml for open invoices")
    parsed = parser.parse_args(arguments)
    try:
        parameters = json.loads(environment.get("AWGP_PARAMETERS") or "{}")
        asked = parameters.get("prepare_payments", False)
        day = parameters.get("execution_date")
        execution = date.fromisoformat(day) if day else None
    except (ValueError, TypeError, AttributeError) as problem:
        raise InputError(f"AWGP_PARAMETERS: {problem}") from problem
    if not isinstance(asked, bool):
        raise InputError("AWGP_PARAMETERS: prepare_payments is true or false")
    return Job(
        inputs=Path(environment.get("AWGP_INPUT_DIR", ".")),
        outputs=Path(environment.get("AWGP_OUTPUT_DIR", ".")),
        prepare_payments=parsed.prepare_payments or asked,
        execution=execution,
    )


def run(job: Job) -> None:
    """Does the job; prints a line for each step."""
    invoices = read_invoices(job.inputs / "invoices.csv")
    statement = read_statement(job.inputs / "bank_statement.csv")
    say(f"read {len(invoices)} invoices and {len(statement.entries)} bank entries")
    result = reconcile(invoices, statement.entries)
    tell(result)
    job.outputs.mkdir(parents=True, exist_ok=True)
    order = prepare_payments(job, statement, result.open_invoices) if job.prepare_payments else None
    document = json.dumps(as_json(statement, result, order), ensure_ascii=False, indent=2)
    (job.outputs / "result.json").write_text(document + "\n", encoding="utf-8")
    (job.outputs / "report.md").write_text(as_markdown(statement, result, order), encoding="utf-8")
    say("wrote report.md and result.json")


def tell(result: Reconciliation) -> None:
    """Prints what became of each invoice."""
    for match in result.settled:
        fee = f", {match.fee} EUR fee" if match.fee else ""
        say(f"settled   {match.invoice.number}: {match.entry.paid} EUR on {match.entry.booked}{fee}")
    for match in result.partial:
        say(f"partial   {match.invoice.number}: {match.entry.paid} of {match.invoice.amount} EUR")
    for match in result.unclear:
        say(f"unclear   {match.invoice.number}: {match.entry.paid} EUR paid, {match.invoice.amount} owed")
    for match in result.duplicates:
        say(f"duplicate {match.invoice.number}: {match.entry.paid} EUR again on {match.entry.booked}")
    for invoice in result.open_invoices:
        say(f"open      {invoice.number}: {invoice.amount} EUR, due {invoice.due}")


def prepare_payments(job: Job, statement: Statement, invoices: list[Invoice]) -> PaymentOrder | None:
    """Writes payments.xml; None when nothing is open that can be paid.

    Raises:
        InputError: The paying account's IBAN is wrong.
    """
    if not valid_iban(statement.iban):
        raise InputError(f"bank_statement.csv: the account's IBAN {statement.iban} has wrong check digits")
    order = order_for(statement, invoices, job.execution)
    for invoice, reason in order.held_back:
        say(f"held back {invoice.number}: {reason}")
    if not order.invoices:
        say("no payment file: nothing is open that can be paid")
        return None
    write_payment_file(job.outputs / "payments.xml", order, statement, datetime.now(UTC))
    say(f"wrote payments.xml: {len(order.invoices)} transfers, {order.total} EUR, on {order.execution}")
    return order


def say(line: str) -> None:
    """Prints progress at once: somebody may be watching."""
    print(line, flush=True)  # noqa: T201


def main() -> int:
    """Runs the agent."""
    try:
        run(read_job(sys.argv[1:], dict(os.environ)))
    except InputError as problem:
        print(f"reconcile: {problem}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
