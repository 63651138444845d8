"""What the reconciliation job must find in the example's files; the agent runs as the process it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "examples" / "reconcile"
AGENT = CHECKOUT / "sandbox" / "agents" / "reconcile.py"
PAIN = "{urn:iso:std:iso:20022:tech:xsd:pain.001.001.09}"

OPEN = {
    "BE-88120767": "3377.90",
    "F2026/0102": "915.50",
    "ES-26-3540": "499.00",
    "FT 163/26": "1848.30",
    "70593": "1125.00",
    "EV 2026/91": "2212.08",
    "MP-2026-0264": "967.12",
}
SETTLED_ON = {
    "MP-2026-0117": "2026-02-06",
    "MP-2026-0171": "2026-02-27",
    "BE-88120431": "2026-01-26",
    "BE-88120598": "2026-02-25",
    "VL26-00934": "2026-02-10",
    "VL26-01022": "2026-03-02",
    "VL26-01187": "2026-03-18",
    "F2026/0045": "2026-02-17",
    "ES-26-3301": "2026-02-02",
    "ES-26-3417": "2026-03-04",
    "EM-10442": "2026-01-29",
    "EM-10467": "2026-03-05",
    "INV-0009173": "2026-02-13",
    "INV-0009412": "2026-03-13",
    "70551": "2026-02-24",
    "K-2026-18": "2026-03-11",
    "EV 2026/77": "2026-03-13",
    "PM/0208/2026": "2026-03-19",
    "VV-558210-26": "2026-01-30",
    "MIETE-2026-01": "2026-01-05",
    "MIETE-2026-02": "2026-02-05",
    "MIETE-2026-03": "2026-03-05",
}
FEES = {"EM-10442": "12.50", "EM-10467": "12.50", "K-2026-18": "25.00", "PM/0208/2026": "8.75"}


def run(
    inputs: Path, outputs: Path, *arguments: str, parameters: dict[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {"AWGP_INPUT_DIR": str(inputs), "AWGP_OUTPUT_DIR": str(outputs), "PATH": os.environ["PATH"]}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    if parameters is not None:
        environment["AWGP_PARAMETERS"] = json.dumps(parameters)
    command = [sys.executable, str(AGENT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def result_of(outputs: Path) -> dict[str, Any]:
    return json.loads((outputs / "result.json").read_text(encoding="utf-8"))


def test_each_invoice_and_entry_is_where_a_bookkeeper_would_put_it(tmp_path: Path) -> None:
    done = run(EXAMPLE, tmp_path)
    assert done.returncode == 0, done.stderr
    result = result_of(tmp_path)
    assert {match["invoice"]: match["booked"] for match in result["settled"]} == SETTLED_ON
    assert {match["invoice"]: match["fee"] for match in result["settled"] if match["fee"] != "0.00"} == FEES
    assert {invoice["invoice"]: invoice["amount"] for invoice in result["open_invoices"]} == OPEN
    assert [(m["invoice"], m["paid"], m["open"]) for m in result["partial"]] == [("FT 118/26", "3000.00", "2730.00")]
    assert [(m["invoice"], m["booked"], m["to_reclaim"]) for m in result["duplicates"]] == [
        ("F2026/0045", "2026-02-18", "2460.00")
    ]
    assert result["unclear"] == []
    assert [entry["amount"] for entry in result["other_payments"]] == [
        "-300.00", "-6120.44", "-28450.00", "-28450.00", "-18.90", "-86.35",
    ]  # fmt: skip
    assert [entry["amount"] for entry in result["incoming"]] == ["11900.00", "4760.00"]
    assert result["payment_file"] is None
    assert not (tmp_path / "payments.xml").exists()
    summary = result["summary"]
    assert (summary["invoices"], summary["open_total"], summary["fees_total"]) == (30, "10944.90", "58.75")


def test_every_entry_of_the_statement_is_accounted_for_once(tmp_path: Path) -> None:
    run(EXAMPLE, tmp_path)
    result = result_of(tmp_path)
    lists = ("settled", "partial", "unclear", "duplicates", "other_payments", "incoming")
    lines = sorted(item["statement_line"] for name in lists for item in result[name])
    assert lines == list(range(2, 34))


def test_the_report_names_what_needs_a_decision(tmp_path: Path) -> None:
    done = run(EXAMPLE, tmp_path)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Needs a decision: paid twice" in report
    assert "Needs a decision: paid in part" in report
    assert report.index("paid twice") < report.index("Open invoices") < report.index("Settled")
    assert "duplicate F2026/0045" in done.stdout
    assert "open      MP-2026-0264" in done.stdout


@pytest.mark.parametrize("by", ["argument", "parameters"])
def test_the_payment_file_is_a_pain_001_001_09(tmp_path: Path, by: str) -> None:
    if by == "argument":
        done = run(EXAMPLE, tmp_path, "--prepare-payments")
    else:
        done = run(EXAMPLE, tmp_path, parameters={"prepare_payments": True})
    assert done.returncode == 0, done.stderr
    document = ET.parse(tmp_path / "payments.xml").getroot()
    assert document.tag == f"{PAIN}Document"
    initiation = only(document, "CstmrCdtTrfInitn")
    assert names(initiation) == ["GrpHdr", "PmtInf"]
    header, information = initiation
    assert names(header) == ["MsgId", "CreDtTm", "NbOfTxs", "CtrlSum", "InitgPty"]
    assert 0 < len(text(header, "MsgId")) <= 35
    transactions = information.findall(f"{PAIN}CdtTrfTxInf")
    # The order of the schema's sequence PaymentInstruction30.
    assert names(information)[: -len(transactions)] == [
        "PmtInfId", "PmtMtd", "BtchBookg", "NbOfTxs", "CtrlSum", "PmtTpInf", "ReqdExctnDt", "Dbtr", "DbtrAcct",
        "DbtrAgt", "ChrgBr",
    ]  # fmt: skip
    assert len(text(information, "PmtInfId")) <= 35
    assert text(information, "ReqdExctnDt/Dt") == "2026-03-23"
    assert text(information, "DbtrAcct/Id/IBAN") == "DE89370400440532013000"
    for part in (header, information):
        assert text(part, "NbOfTxs") == str(len(transactions)) == str(len(OPEN))
        assert text(part, "CtrlSum") == str(sum(map(Decimal, OPEN.values())))
    assert {check_transaction(item): text(item, "Amt/InstdAmt") for item in transactions} == OPEN
    assert result_of(tmp_path)["payment_file"]["control_sum"] == "10944.90"


def check_transaction(item: ET.Element) -> str:
    """Checks one CreditTransferTransaction34; returns the invoice it pays."""
    assert names(item) == ["PmtId", "Amt", "Cdtr", "CdtrAcct", "RmtInf"]
    assert only(only(item, "Amt"), "InstdAmt").get("Ccy") == "EUR"
    iban = text(item, "CdtrAcct/Id/IBAN")
    assert int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1
    assert len(text(item, "RmtInf/Ustrd")) <= 140
    number = text(item, "PmtId/EndToEndId")
    assert number in text(item, "RmtInf/Ustrd")
    return number


def names(element: ET.Element) -> list[str]:
    assert all(child.tag.startswith(PAIN) for child in element)
    return [child.tag.removeprefix(PAIN) for child in element]


def only(element: ET.Element, name: str) -> ET.Element:
    (found,) = element.findall(PAIN + name)
    return found


def text(element: ET.Element, path: str) -> str:
    for name in path.split("/"):
        element = only(element, name)
    assert element.text
    return element.text


def test_the_same_payments_have_the_same_message_id_and_another_day_another(tmp_path: Path) -> None:
    parameters: list[dict[str, object]] = [
        {"prepare_payments": True},
        {"prepare_payments": True},
        {"prepare_payments": True, "execution_date": "2026-03-25"},
    ]
    ids: list[str] = []
    for number, asked in enumerate(parameters):
        assert run(EXAMPLE, tmp_path / str(number), parameters=asked).returncode == 0
        ids.append(result_of(tmp_path / str(number))["payment_file"]["message_id"])
    assert ids[0] == ids[1] != ids[2]


def changed(tmp_path: Path, file: str, before: str, after: str) -> Path:
    folder = tmp_path / "in"
    shutil.copytree(EXAMPLE, folder)
    content = (folder / file).read_text(encoding="utf-8")
    assert content.count(before) >= 1
    (folder / file).write_text(content.replace(before, after, 1), encoding="utf-8")
    return folder


def test_an_invoice_with_a_wrong_iban_is_not_paid(tmp_path: Path) -> None:
    inputs = changed(tmp_path, "invoices.csv", "FI2112345600000785,2026-03-06", "FI2112345600000786,2026-03-06")
    assert run(inputs, tmp_path / "out", "--prepare-payments").returncode == 0
    order = result_of(tmp_path / "out")["payment_file"]
    assert [held["invoice"] for held in order["held_back"]] == ["70593"]
    assert order["control_sum"] == "9819.90"


def test_an_invoice_paid_too_high_is_not_paid_again(tmp_path: Path) -> None:
    inputs = changed(tmp_path, "bank_statement.csv", "-3162.50", "-3500.00")
    assert run(inputs, tmp_path / "out", "--prepare-payments").returncode == 0
    result = result_of(tmp_path / "out")
    assert [match["invoice"] for match in result["unclear"]] == ["EM-10467"]
    assert "EM-10467" not in result["payment_file"]["invoices"]


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("invoices.csv", "1284.60", '"12,84"', "invoices.csv, line 2"),
        ("invoices.csv", "invoice_number", "number", "no column invoice_number"),
        ("invoices.csv", "MP-2026-0171", "MP-2026-0117", "occurs twice"),
        ("bank_statement.csv", "2026-01-05", "05.01.2026", "bank_statement.csv, line 2"),
        ("bank_statement.csv", "EUR", "USD", "only EUR"),
        ("bank_statement.csv", "DE89370400440532013000", "DE89370400440532013001", "one account"),
    ],
)
def test_input_that_cannot_be_used_is_named(tmp_path: Path, file: str, before: str, after: str, said: str) -> None:
    done = run(changed(tmp_path, file, before, after), tmp_path / "out")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_missing_file_and_bad_parameters_are_named(tmp_path: Path) -> None:
    done = run(tmp_path, tmp_path)
    assert done.returncode == 2
    assert "invoices.csv: No such file" in done.stderr
    done = run(EXAMPLE, tmp_path, parameters={"prepare_payments": "yes"})
    assert done.returncode == 2
    assert "prepare_payments is true or false" in done.stderr
