#!/usr/bin/env bash
# A watcher makes batches of the files that land in a directory, runs them, and refuses some files with reasons. It is killed on the way and started again: each file
# is taken once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../places.sh"
work_in infiled "$@"
cp "$here/watch.toml" .
day=$here/../banktxns/transactions

watcher=
trap '[ -z "$watcher" ] || kill -KILL "$watcher" 2>/dev/null || true' EXIT
start() {
  "$rowmill" watch --types watch.toml --json >>taken.ndjson &
  watcher=$!
}
in_place() { find "box/$1" -type f ! -name '*.reasons.json' | wc -l; }
# Waits until so many files are in a place, two minutes at most.
until_there() {
  local looks=0
  until [ "$(in_place "$1")" -ge "$2" ]; do
    looks=$((looks + 1))
    [ "$looks" -lt 1200 ] || { echo "the watcher takes no files" >&2; exit 1; }
    kill -0 "$watcher" || { echo "the watcher has ended" >&2; exit 1; }
    sleep 0.1
  done
}

"$rowmill" deploy bank post "$repository/target/guests/bank-transactions.wasm" --activate >version
mkdir -p box/done box/failed
start
# With a control total that matches, and with one that does not.
send "$day-2026-01-31.csv" checked-1.csv
send "$day-2026-02-01.csv" checked-2.csv
grep -v ,total, "$day-2026-01-31.csv" >all.csv
for number in $(seq 20); do
  send all.csv "plain-$number.csv"
done
gzip -c all.csv >all.csv.gz
send all.csv.gz compressed.csv.gz
# Not what its name says; a name that no type is for; and one that is still written.
send all.csv not-compressed.csv.gz
send all.csv notes.txt
cp all.csv box/incoming/unfinished.csv.part

until_there done 5
kill -KILL "$watcher"
wait "$watcher" || true
echo "the watcher was killed when $(in_place done) of 22 good files were done"
start
until_there done 22
until_there failed 3
kill -TERM "$watcher"
wait "$watcher"
watcher=
# What it did not run before it was asked to stop.
"$rowmill" work --until-idle

echo "done: $(in_place done), failed: $(in_place failed), left: $(ls box/incoming)"
for reasons in box/failed/*.reasons.json; do
  echo "$(cat "$reasons")"
done
