# What the examples in the shell share: the program, and where they work. Read by them, with `.`.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rowmill=$(realpath "${CARGO_TARGET_DIR:-$repository/target}/release/rowmill")

# Goes to the directory that `--directory DIR` names, which should be empty, else to target/examples/NAME, which is emptied: `work_in NAME "$@"`.
work_in() {
  local directory=$repository/target/examples/$1
  shift
  case $# in
    0) rm -rf "$directory" ;;
    2) [ "$1" = --directory ] && directory=$2 ;;
    *) false ;;
  esac || { echo "usage: [--directory DIR]" >&2; exit 2; }
  mkdir -p "$directory"
  [ -z "$(ls -A "$directory")" ] || { echo "$directory is not empty" >&2; exit 2; }
  cd "$directory"
  cp "$repository/target/guests/transactions-check.wasm" .
  mkdir -p box/incoming
}

# A file comes in as senders should do it: written under a name that is left alone, and renamed when it is whole. `send FILE NAME`.
send() {
  cp "$1" "box/incoming/.$2"
  mv "box/incoming/.$2" "box/incoming/$2"
}
