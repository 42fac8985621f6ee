#!/usr/bin/env bash
# Builds the example guests to target/guests/NAME.wasm, as `rowmill` takes them.
#
#   examples-guests/build.sh             every guest
#   examples-guests/build.sh NAME…       only these
#
# A guest is a directory here, in the language that its manifest says:
#
# - Cargo.toml (its crate named like the directory): a core module that carries its WIT, which `rowmill` lifts to a component. The compiler's own
#   wasm32-unknown-unknown library is used when it is there or rustup can add it. Without rustup, Debian's newer Rust packages compile the library from source,
#   into this project's target directory only. ROWMILL_GUEST_TOOLCHAIN=debian takes that second way at once, =rustup never takes it.
# - requirements.txt: Python, by componentize-py. package.json: JavaScript, by componentize-qjs. The modules of guest-sdk/python and guest-sdk/javascript stand beside theirs. The packages that are pinned there are installed to target/tools/NAME, and nothing
#   is made again while its inputs are the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=wasm32-unknown-unknown
toolchain=${ROWMILL_GUEST_TOOLCHAIN:-auto}
say() { printf '==> %s\n' "$*" >&2; }

apt_install() {
  command -v apt-get >/dev/null || { say "$* needed, and there is no apt-get here: install them by hand"; return 1; }
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  say "installing $* with apt-get"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

has_target() { [ -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ]; }

add_target() {
  ! has_target || return 0
  command -v rustup >/dev/null || { say "no library for $target, and no rustup to add it"; return 1; }
  say "installing Rust's library for $target with rustup"
  rustup target add "$target" && has_target
}

# Debian's rustc-web has no ready library for wasm, so cargo builds it from rust-web-src; RUSTC_BOOTSTRAP allows the unstable -Z flag.
use_debian() {
  local need=() package
  for package in rustc-web cargo-web rust-web-src; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || need+=("$package")
  done
  [ ${#need[@]} = 0 ] || apt_install "${need[@]}"
  # Any LLVM linker does: the one beside the compiler, else Debian's.
  local linker
  linker=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
  if [ ! -x "$linker" ]; then
    command -v wasm-ld >/dev/null || apt_install lld
    linker=wasm-ld
  fi
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$linker
  cargo=(/usr/bin/cargo)
  flags=(-Zbuild-std=std,panic_abort)
}

build_rust() {
  cargo=(cargo)
  flags=()
  case $toolchain in
    debian) use_debian ;;
    rustup) add_target ;;
    auto) add_target || use_debian ;;
    *) say "ROWMILL_GUEST_TOOLCHAIN may be debian or rustup, not $toolchain"; exit 2 ;;
  esac
  "${cargo[@]}" build "${flags[@]}" --profile guest --target "$target" "${@/#/--package=}"
  local name built
  for name in "$@"; do
    built=${CARGO_TARGET_DIR:-target}/$target/guest/${name//-/_}.wasm
    # An unchanged file keeps its time, so that what is made from it is not made again.
    cmp -s "$built" "target/guests/$name.wasm" || cp "$built" "target/guests/$name.wasm"
  done
}

# Runs `build_LANGUAGE NAME TOOLS OUT` where anything that it depends on is new.
build_once() {
  local language=$1 name=$2 inputs tools=target/tools/$2 made=target/guests/$2.wasm
  inputs=$(find wit "guest-sdk/$language" "examples-guests/$name" examples-guests/build.sh -type f -print0 | sort -z | xargs -0 sha256sum)
  if [ -e "$made" ] && [ "$inputs" = "$(cat "$made.inputs" 2>/dev/null)" ]; then return; fi
  say "compiling $name (half a minute)"
  mkdir -p "$tools"
  rm -f "$made.inputs"
  "build_$language" "examples-guests/$name" "$tools" "$tools/made.wasm"
  mv "$tools/made.wasm" "$made"
  printf '%s\n' "$inputs" >"$made.inputs"
}

build_python() {
  local source=$1 tools=$2 made=$3
  # Debian's Python has its venv in a package of its own.
  if ! python3 -m venv --clear "$tools" >/dev/null 2>&1; then
    apt_install python3-venv
    /usr/bin/python3 -m venv --clear "$tools"
  fi
  "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$source/requirements.txt"
  # From a copy, beside which Python may leave its compiled files.
  mkdir "$tools/source"
  cp "$source"/*.py guest-sdk/python/*.py "$tools/source"
  "$tools/bin/componentize-py" -d wit -w batch-processor componentize app -p "$tools/source" -o "$made" >&2
}

build_javascript() {
  local source=$1 tools=$2 made=$3
  command -v npm >/dev/null || apt_install nodejs npm
  cp "$source/package.json" "$source/package-lock.json" "$tools"
  npm ci --prefix "$tools" --silent --no-audit --no-fund >&2
  mkdir -p "$tools/source"
  cp "$source"/*.js guest-sdk/javascript/*.js "$tools/source"
  # Stacks name files as they are from here.
  (root=$PWD && cd "$tools/source" && ../node_modules/.bin/componentize-qjs --sync -w "$root/wit" -n batch-processor -j app.js -o "$root/$made" >&2)
}

names=("$@")
if [ ${#names[@]} = 0 ]; then
  shopt -s nullglob
  for manifest in examples-guests/*/{Cargo.toml,requirements.txt,package.json}; do
    names+=("$(basename "$(dirname "$manifest")")")
  done
fi

mkdir -p target/guests
in_rust=()
for name in "${names[@]}"; do
  if [ -e "examples-guests/$name/requirements.txt" ]; then
    build_once python "$name"
  elif [ -e "examples-guests/$name/package.json" ]; then
    build_once javascript "$name"
  else
    in_rust+=("$name")
  fi
done
[ ${#in_rust[@]} = 0 ] || build_rust "${in_rust[@]}"
say "${#names[@]} guests in target/guests"
