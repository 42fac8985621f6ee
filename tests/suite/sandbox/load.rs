//! Files that are no processors: each is refused with a sentence that says what was expected and what was found.

use insta::assert_snapshot;
use rowmill::model::{Grants, ProcessorKind};
use rowmill::sandbox::{LoadError, Sandbox};
use tempfile::TempDir;

use crate::support::guests;
use crate::support::sessions::{limits, output, run_one, sandbox};
use crate::support::wat::Wat;

#[track_caller]
fn refused(file: &[u8]) -> LoadError {
    sandbox().load(file).err().expect("it is taken for a processor")
}

#[test]
fn what_is_not_webassembly_is_shown_as_far_as_it_can_be() {
    assert_snapshot!(refused(b"<!DOCTYPE html>\n<html>"), @r#"this is not a WebAssembly file: it begins with the text "<!DOCTYPE html>\n<html>""#);
    assert_snapshot!(refused(b"<!DOCTYPE html><html lang=\"en\">"), @r#"this is not a WebAssembly file: it begins with the text "<!DOCTYPE html><html lan""#);
    assert_snapshot!(refused(b""), @"this is not a WebAssembly file: it is empty");
    assert_snapshot!(refused(b"\x7fELF\x02\x01\x01\0"), @"this is not a WebAssembly file: it begins with the bytes 7f 45 4c 46 02 01 01 00");
    assert_snapshot!(refused("(component äöü äöü äöü äöü)".as_bytes()), @r#"this is not a WebAssembly file: it begins with the text "(component äöü äöü""#);
    assert_snapshot!(refused(b"\0asm"), @"this is not a WebAssembly file: it begins with the bytes 00 61 73 6d");
    // The last character is cut off.
    assert_snapshot!(refused("(component äöü äöü äöüäöü)".as_bytes()), @r#"this is not a WebAssembly file: it begins with the text "(component äöü äöü""#);
    // Whose version nobody knows.
    assert_snapshot!(refused(b"\0asm\x02\0\0\0"), @"this is not a WebAssembly file: it begins with the bytes 00 61 73 6d 02 00 00 00");
}

#[test]
fn a_core_module_without_wit_is_refused() {
    let LoadError::CoreModuleWithoutWit = refused(&wat::parse_str("(module (func (export \"process-row\")))").unwrap()) else { panic!() };
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let sandbox = sandbox();
    for whole in [guests::read("bank-transactions"), Wat::batch().component()] {
        for part in 1..40 {
            let end = whole.len() * part / 40;
            assert!(sandbox.load(&whole[..end]).is_err(), "the first {end} of {} bytes", whole.len());
        }
    }
    assert_snapshot!(refused(&Wat::batch().component()[..500]), @"this WebAssembly file is not valid, or needs a feature that is not offered: unexpected end-of-file (at offset 0xb)");
}

#[test]
fn a_component_that_exports_other_things_is_told_what_it_exports() {
    assert_snapshot!(refused(&wat::parse_str("(component)").unwrap()), @"this component is no processor: it should export rowmill:jobs/batch@0.1.0 (for rows) or rowmill:jobs/slow-query@0.1.0 (for queries), but exports nothing");
    let other = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (export "run-me" (func $f)) (export "and-me" (func $f)))"#;
    assert_snapshot!(refused(&wat::parse_str(other).unwrap()), @"this component is no processor: it should export rowmill:jobs/batch@0.1.0 (for rows) or rowmill:jobs/slow-query@0.1.0 (for queries), but exports run-me, and-me");
    assert_snapshot!(refused(&Wat::batch().version("0.2.0").component()), @"this component is no processor: it should export rowmill:jobs/batch@0.1.0 (for rows) or rowmill:jobs/slow-query@0.1.0 (for queries), but exports rowmill:jobs/lifecycle@0.2.0, rowmill:jobs/batch@0.2.0");
}

#[test]
fn both_kinds_at_once_are_refused() {
    assert_snapshot!(refused(&Wat::both().module()), @"this component exports both rowmill:jobs/batch@0.1.0 and rowmill:jobs/slow-query@0.1.0: a processor is one of the two");
}

#[test]
fn imports_that_nobody_is_given_are_named() {
    let guest = Wat::batch()
        .package("package acme:bank@1.0.0; interface ledger { post: func(); }")
        .package("package wasi:http@0.2.0; interface outgoing-handler { handle: func(); }")
        .world("import acme:bank/ledger@1.0.0; import wasi:http/outgoing-handler@0.2.0;")
        .import("acme:bank/ledger@1.0.0", "post", "post", "")
        .import("wasi:http/outgoing-handler@0.2.0", "handle", "handle", "");
    assert_snapshot!(refused(&guest.module()), @"this component imports what no processor is given: acme:bank/ledger@1.0.0");
}

#[tokio::test]
async fn what_is_for_mark_done_may_be_imported_and_needs_no_grant() {
    let guest = |version: &str| {
        Wat::batch()
            .package(&format!("package rowmill:jobs@{version}; interface mark {{ attempt: func() -> option<u32>; }}"))
            .world(&format!("import rowmill:jobs/mark@{version};"))
            .import(&format!("rowmill:jobs/mark@{version}"), "attempt", "attempt", "(param i32)")
    };
    let ours =
        Wat::batch().world("include rowmill:jobs/mark-done-imports@0.1.0;").import("rowmill:jobs/mark@0.1.0", "attempt", "attempt", "(param i32)");
    let processor = sandbox().load(&ours.module()).unwrap();
    let imports = processor.interface().imports;
    assert!(
        imports.contains(&"rowmill:jobs/mark@0.1.0".to_owned()) && !imports.contains(&"rowmill:jobs/output-files@0.1.0".to_owned()),
        "{imports:?}"
    );
    processor.check_grants("bank", &Grants::default()).unwrap();
    assert_eq!(output(&run_one(&processor, limits(), "{}").await), "{}");
    assert_snapshot!(refused(&guest("0.2.0").module()), @"this component imports what no processor is given: rowmill:jobs/mark@0.2.0");
}

#[test]
fn interfaces_of_another_shape_are_refused() {
    let other_row = Wat::batch().contract(|wit| wit.replace("        attempt: u32,\n", "        tries: u32,\n"));
    assert_snapshot!(refused(&other_row.module()), @"this component does not fit the interfaces of rowmill:jobs@0.1.0: rowmill:jobs/batch@0.1.0, function process-row, parameter row: record row: it lacks the field attempt; build it with the wit directory of this version");
    let other_import = Wat::batch().contract(|wit| wit.replace("cancelled: func() -> bool", "cancelled: func() -> u8")).import(
        "rowmill:jobs/host@0.1.0",
        "cancelled",
        "cancelled",
        "(result i32)",
    );
    assert_snapshot!(refused(&other_import.module()), @"this component does not fit the interfaces of rowmill:jobs@0.1.0: rowmill:jobs/host@0.1.0, function cancelled, result: it should be bool, and is u8; build it with the wit directory of this version");
    let other_mark = Wat::batch()
        .contract(|wit| wit.replace("attempt: func() -> option<u32>", "attempt: func() -> u32"))
        .world("include rowmill:jobs/mark-done-imports@0.1.0;")
        .import("rowmill:jobs/mark@0.1.0", "attempt", "attempt", "(result i32)");
    assert_snapshot!(refused(&other_mark.module()), @"this component does not fit the interfaces of rowmill:jobs@0.1.0: rowmill:jobs/mark@0.1.0, function attempt, result: it should be option, and is u32; build it with the wit directory of this version");
    let batch_only = r#"(component (instance $i) (export "rowmill:jobs/batch@0.1.0" (instance $i)))"#;
    assert_snapshot!(refused(&wat::parse_str(batch_only).unwrap()), @"this component does not fit the interfaces of rowmill:jobs@0.1.0: it does not export rowmill:jobs/lifecycle@0.1.0; build it with the wit directory of this version");
}

/// Each is refused though the component needs fuel to start, so that no instance of it can be made when it is loaded.
#[test]
fn interfaces_of_another_shape_are_refused_wherever_they_differ() {
    let refused = |from: &str, to: &str| {
        let guest = Wat::batch().contract(|wit| {
            assert!(wit.contains(from), "{from}");
            wit.replace(from, to)
        });
        let text = refused(&guest.fields("(func $start (loop)) (start $start)").module()).to_string();
        let reason = text.strip_prefix("this component does not fit the interfaces of rowmill:jobs@0.1.0: rowmill:jobs/batch@0.1.0, function ");
        reason
            .and_then(|reason| reason.strip_suffix("; build it with the wit directory of this version"))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    assert_snapshot!(refused("        pieces: list<piece>,\n", ""), @"process-row, result: record outcome: it lacks the field pieces");
    assert_snapshot!(refused("        pieces: list<piece>,\n", "        pieces: list<piece>, more: u8,\n"), @"process-row, result: record outcome: it has a field more, which is not known");
    assert_snapshot!(refused("        id: u32,\n        /// A short word", "        id: s32,\n        /// A short word"), @"process-row, result: record outcome: field messages: record message: field id: it should be u32, and is s32");
    assert_snapshot!(refused("field: option<string>", "field: string"), @"process-row, result: record outcome: field messages: record message: field field: it should be option, and is string");
    assert_snapshot!(refused("        abort-batch(string),\n", ""), @"begin, result: error: variant failure: it lacks the case abort-batch");
    assert_snapshot!(refused("        permanent(string)", "        permanent"), @"begin, result: error: variant failure: case permanent: string is missing");
    assert_snapshot!(refused("        success,\n        /// The input was", "        done,\n        /// The input was"), @"process-row, result: record outcome: field status: enum row-status: it lacks the case success");
}

#[test]
fn features_that_are_off_are_refused() {
    let features = [
        ("threads", "(memory 1 1 shared)"),
        ("64-bit memory", "(memory i64 1)"),
        ("two memories", "(memory 1) (memory 1)"),
        ("tail calls", "(func $f return_call $f)"),
        ("exceptions", "(tag $t) (func throw $t)"),
        ("garbage collection", "(type (struct (field i32)))"),
        ("function references", "(type $t (func)) (func $f (param (ref null $t)) (call_ref $t (local.get 0)))"),
    ];
    for (name, field) in features {
        let component = format!("(component (core module {field}))");
        let error = refused(&wat::parse_str(&component).unwrap());
        assert!(matches!(error, LoadError::Invalid(_)), "{name}: {error}");
    }
}

/// Real code and random damage: whatever comes out is an error or a processor, and no panic.
#[test]
fn a_damaged_file_is_refused_or_loaded_but_stops_nothing() {
    let cache = TempDir::new().unwrap();
    let sandbox = Sandbox::new(2, cache.path()).unwrap();
    for whole in [Wat::batch().component(), Wat::batch().module()] {
        for (at, change) in (0..whole.len()).step_by(13).zip([0xff, 0x01, 0x80].into_iter().cycle()) {
            let mut damaged = whole.clone();
            damaged[at] ^= change;
            let _ = sandbox.load(&damaged);
        }
    }
}

#[tokio::test]
async fn components_and_core_modules_of_both_kinds_are_taken() {
    for (wat, kind) in [(Wat::batch(), ProcessorKind::Batch), (Wat::slow_query(), ProcessorKind::SlowQuery)] {
        let sandbox = sandbox();
        let (module, component) = (sandbox.load(&wat.module()).unwrap(), sandbox.load(&wat.component()).unwrap());
        assert_eq!((module.kind(), component.kind()), (kind, kind));
        assert_ne!(module.digest, component.digest);
        for processor in [module, component] {
            assert_eq!(output(&run_one(&processor, limits(), "{}").await), "{}");
        }
    }
}
