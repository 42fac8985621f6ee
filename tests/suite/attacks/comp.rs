//! Uploads, through the whole way of a deployment. Each bomb and each kind of file is tested with the compiler's process and the loading of files.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rowmill::jobs::JobManager;
use rowmill::model::RowStatus;
use rowmill::sandbox::{CompilerSettings, Sandbox, SandboxSettings};
use rowmill::status::StatusBoard;
use tempfile::TempDir;

use super::{Arena, HOSTILE, MIB};
use crate::jobs::settings;
use crate::support::wat::{Wat, answer, with_core_module};
use crate::support::{bombs, guests, target};

/// Another process of the installation, which takes uploads, with a cache of its own.
fn uploads(arena: &Arena, cache: &TempDir, compiler: &CompilerSettings) -> JobManager {
    let program = Some((target().join("release/rowmill"), vec!["compile-processor".into()]));
    let settings_of = SandboxSettings { compiler: CompilerSettings { program, ..compiler.clone() }, ..SandboxSettings::new(4, cache.path()) };
    let sandbox = Sandbox::open(settings_of).unwrap();
    JobManager::new(Arc::clone(&arena.site.store), arena.site.blobs.clone(), Arc::new(StatusBoard::in_process()), sandbox, settings("uploads"))
}

fn told(error: rowmill::jobs::JobError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[tokio::test(flavor = "multi_thread")]
async fn comp_1_rows_run_and_others_deploy_while_bombs_are_compiled() {
    let arena = Arena::open().await;
    let cache = TempDir::new().unwrap();
    let bounded = CompilerSettings { time_max: Duration::from_secs(5), memory_max_bytes: 1024 * MIB, at_once: 2, ..CompilerSettings::default() };
    let jobs = uploads(&arena, &cache, &bounded);
    let bomb = |bodies: &[Vec<u8>]| with_core_module(Wat::batch().component(), &bombs::module(bodies));
    for (op, bodies, sentence) in [
        ("branches", vec![bombs::branches(60_000)], "this file has 50001 blocks and branches in one function, and may have 50000"),
        ("locals", vec![bombs::locals(50_000, 10)], "locals in one function, and may have 20000"),
        ("nesting", vec![bombs::nesting(100_000)], "blocks within each other, and may have 5000"),
        ("no-ops", vec![bombs::nops(64 << 20)], "bytes, and may have 67108864"),
    ] {
        let refused = told(arena.beside(jobs.deploy(HOSTILE, op, bomb(&bodies), None)).await.unwrap_err());
        assert!(refused.contains(sentence), "{op}: {refused}");
    }
    // One that is within all numbers, and takes longer than it may: others deploy beside it.
    let slow = bomb(&vec![bombs::branches(24_000); 60]);
    let other = Wat::batch().body("process-row", &answer(2_000, 2)).fields("(data (i32.const 2000) \"42\")").module();
    let (slow, other) = arena.beside(async { tokio::join!(jobs.deploy(HOSTILE, "slow", slow, None), jobs.deploy("other", "op", other, None)) }).await;
    assert_eq!(other.unwrap().version, 1);
    let refused = told(slow.unwrap_err());
    assert!(refused.contains("this file cannot be compiled: the compiler "), "{refused}");
    assert!(arena.site.jobs.list_versions(HOSTILE, None).await.unwrap().is_empty());
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comp_2_what_is_no_processor_gets_one_sentence_and_leaves_nothing() {
    let arena = Arena::open().await;
    let cache = TempDir::new().unwrap();
    let jobs = uploads(&arena, &cache, &CompilerSettings::default());
    let whole = guests::read("bank-transactions");
    let code = async || [arena.site.blobs.list("processors/", 1_000).await.unwrap(), arena.site.blobs.list("compiled/", 1_000).await.unwrap()];
    let before = code().await;
    let text = |wat: &str| wat::parse_str(wat).unwrap();
    let unknown = Wat::batch().package("package acme:bank@1.0.0; interface ledger { post: func(); }").world("import acme:bank/ledger@1.0.0;").import(
        "acme:bank/ledger@1.0.0",
        "post",
        "post",
        "",
    );
    for (what, file, sentence) in [
        ("core", text("(module (func (export \"process-row\")))"), "this is a core module that does not carry its WIT"),
        (
            "world",
            text("(component)"),
            "it should export rowmill:jobs/batch@0.1.0 (for rows) or rowmill:jobs/slow-query@0.1.0 (for queries), but exports nothing",
        ),
        ("version", Wat::batch().version("0.2.0").component(), "but exports rowmill:jobs/lifecycle@0.2.0, rowmill:jobs/batch@0.2.0"),
        ("both", Wat::both().module(), "a processor is one of the two"),
        (
            "missing",
            text(r#"(component (instance $i) (export "rowmill:jobs/batch@0.1.0" (instance $i)))"#),
            "it does not export rowmill:jobs/lifecycle@0.1.0",
        ),
        ("import", unknown.module(), "this component imports what no processor is given: acme:bank/ledger@1.0.0"),
        ("cut", whole[..whole.len() / 2].to_vec(), "this WebAssembly file is not valid, or needs a feature that is not offered: "),
        ("page", b"<!DOCTYPE html><html>".to_vec(), "this is not a WebAssembly file: it begins with the text \"<!DOCTYPE html><html>\""),
        ("empty", Vec::new(), "this is not a WebAssembly file: it is empty"),
    ] {
        let refused = told(arena.beside(jobs.deploy(HOSTILE, what, file, None)).await.unwrap_err());
        assert!(refused.contains(sentence) && !refused.contains('\n'), "{what}: {refused}");
    }
    assert!(arena.site.jobs.list_versions(HOSTILE, None).await.unwrap().is_empty());
    assert_eq!(code().await, before);
    arena.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comp_3_a_changed_cache_is_compiled_again_while_others_run() {
    let arena = Arena::open().await;
    let cache = TempDir::new().unwrap();
    let answering =
        |number: u32| Wat::batch().body("process-row", &answer(2_000, 2)).fields(&format!("(data (i32.const 2000) \"{number}\")")).module();
    let compiled = |cache: &TempDir| {
        let mut files = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
        files.find(|file| file.extension().is_some_and(|extension| extension == "cwasm")).unwrap()
    };
    uploads(&arena, &cache, &CompilerSettings::default()).register_processor(HOSTILE, "answer", answering(42)).await.unwrap();
    let file = compiled(&cache);
    let good = fs::read(&file).unwrap();
    // What was compiled is no upload, with its seal and without.
    for upload in [good.clone(), good[..good.len() - 32].to_vec()] {
        let refused = told(arena.beside(arena.site.jobs.deploy(HOSTILE, "compiled", upload, None)).await.unwrap_err());
        assert!(refused.contains("this is not a WebAssembly file: it begins with the bytes 7f 45 4c 46"), "{refused}");
    }
    let elsewhere = TempDir::new().unwrap();
    uploads(&arena, &elsewhere, &CompilerSettings::default()).register_processor("other", "answer", answering(13)).await.unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let of_another = fs::read(compiled(&elsewhere)).unwrap();
    arena.site.jobs.shutdown();
    for planted in [flipped, of_another, good[..good.len() - 1].to_vec()] {
        fs::write(&file, &planted).unwrap();
        // A worker with this cache, and no other.
        let worker = uploads(&arena, &cache, &CompilerSettings::default());
        let working = tokio::spawn({
            let worker = worker.clone();
            async move { worker.run().await }
        });
        let id = arena.submit("answer", &["{}"]).await;
        arena.beside(arena.site.wait(id)).await;
        let row = arena.rows(id).await.remove(0);
        assert_eq!((row.status, row.output.as_deref()), (Some(RowStatus::Success), Some("42")));
        worker.shutdown();
        working.await.unwrap().unwrap();
        assert!(fs::read(&file).unwrap() == good, "what was planted is still there");
    }
}
