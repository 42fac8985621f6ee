#!/usr/bin/env bash
# Builds the example guests to target/guests/NAME.wasm: core modules that carry their WIT, which `rowmill` lifts to components.
#
#   examples-guests/build.sh             every guest: each directory here with a Cargo.toml, its crate named like the directory
#   examples-guests/build.sh NAME…       only these
#
# The compiler's own wasm32-unknown-unknown library is used when it is there or rustup can add it. Without rustup, Debian's newer
# Rust packages compile the library from source, into this project's target directory only.
# ROWMILL_GUEST_TOOLCHAIN=debian takes that second way at once, =rustup never takes it.
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

cargo=(cargo)
flags=()
case $toolchain in
  debian) use_debian ;;
  rustup) add_target ;;
  auto) add_target || use_debian ;;
  *) say "ROWMILL_GUEST_TOOLCHAIN may be debian or rustup, not $toolchain"; exit 2 ;;
esac

names=("$@")
if [ ${#names[@]} = 0 ]; then
  shopt -s nullglob
  for manifest in examples-guests/*/Cargo.toml; do
    names+=("$(basename "$(dirname "$manifest")")")
  done
  [ ${#names[@]} -gt 0 ] || { say "no guest in examples-guests"; exit 1; }
fi

"${cargo[@]}" build "${flags[@]}" --profile guest --target "$target" "${names[@]/#/--package=}"
mkdir -p target/guests
for name in "${names[@]}"; do
  built=${CARGO_TARGET_DIR:-target}/$target/guest/${name//-/_}.wasm
  # An unchanged file keeps its time, so that what is made from it is not made again.
  cmp -s "$built" "target/guests/$name.wasm" || cp "$built" "target/guests/$name.wasm"
done
say "${#names[@]} guests in target/guests"
