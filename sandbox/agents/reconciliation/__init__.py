"""Matches a company's outgoing payments with the supplier invoices it owes."""
