#!/bin/sh
# Creates or updates Temporal's two databases; safe to repeat.
set -eu
SQL_PASSWORD=$(cat /run/secrets/postgres_password)
export SQL_PASSWORD
for name in temporal temporal_visibility; do
  case $name in temporal) kind=temporal ;; *) kind=visibility ;; esac
  temporal-sql-tool --db "$name" create || true
  SQL_DATABASE=$name
  export SQL_DATABASE
  temporal-sql-tool setup-schema -v 0.0 || true
  temporal-sql-tool update-schema -d "/etc/temporal/schema/postgresql/v12/$kind/versioned"
done
