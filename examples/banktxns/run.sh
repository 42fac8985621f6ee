#!/usr/bin/env bash
# Bank transactions from two CSV files, each of which is checked before it becomes a batch: one matches its control total, the other was changed on its way.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../places.sh"
work_in banktxns "$@"
cp "$here/watch.toml" .

"$rowmill" deploy bank post "$repository/target/guests/bank-transactions.wasm" --activate >version
for day in 2026-01-31 2026-02-01; do
  send "$here/transactions-$day.csv" "transactions-$day.csv"
done
"$rowmill" watch --types watch.toml --once --json | tee taken.ndjson

batch=$(sed -n 's/.*"batch":"\([^"]*\)".*/\1/p' taken.ndjson)
"$rowmill" work --until-idle
"$rowmill" status "$batch"
# Status 1 says that a row failed: the payment without a memo.
"$rowmill" results "$batch" --out results >summary.json || [ $? = 1 ]
for file in results/failed.ndjson results/files/postings.csv box/failed/*.reasons.json; do
  echo "$file:"
  cat "$file"
  echo
done
