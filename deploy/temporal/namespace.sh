#!/bin/sh
# The namespace (30 days of retention) and the search attributes; safe to repeat.
set -eu
temporal operator namespace describe --namespace awgp >/dev/null 2>&1 ||
  temporal operator namespace create --namespace awgp --retention 720h
for name in AwgpTenant AwgpAssistant AwgpRiskLevel AwgpStatus AwgpAwaiting; do
  temporal operator search-attribute list --namespace awgp | grep -qw "$name" ||
    temporal operator search-attribute create --namespace awgp --name "$name" --type Keyword
done
