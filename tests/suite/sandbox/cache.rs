//! Compiled code on disk. To load it is to run it.

use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rowmill::sandbox::{Sandbox, SandboxSettings};
use tempfile::TempDir;

use crate::support::guests;
use crate::support::sessions::{limits, output, run_one};
use crate::support::wat::{Wat, answer};

#[test]
fn a_cache_that_others_can_write_to_is_refused() {
    let directory = TempDir::new().unwrap();
    let open = |mode| {
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        Sandbox::new(2, directory.path()).map(|_| ()).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    };
    for mode in [0o770, 0o720, 0o702, 0o777] {
        let told = open(mode).unwrap_err().replace(directory.path().to_str().unwrap(), "DIR");
        assert_eq!(
            told,
            "the directory for compiled processors, DIR, cannot be used: \
             DIR can be written by others, so code in it cannot be trusted: chmod 700 it, or choose another"
        );
    }
    for mode in [0o700, 0o755] {
        assert_eq!(open(mode), Ok(()));
    }
}

#[test]
fn a_cache_that_is_made_is_for_its_user_only() {
    let directory = TempDir::new().unwrap();
    let place = directory.path().join("not/there/yet");
    Sandbox::new(2, &place).unwrap();
    for made in ["not", "not/there", "not/there/yet"] {
        assert_eq!(fs::metadata(directory.path().join(made)).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Sandbox::new(2, &file).is_err());
}

/// The one file of compiled code in a cache, in which nothing else is but the key.
fn compiled(cache: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().is_none_or(|name| name != "key"));
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[tokio::test]
async fn compiled_code_is_used_again_and_damaged_code_is_compiled_again_and_not_run() {
    let cache = TempDir::new().unwrap();
    let module = Wat::batch().body("process-row", &answer(2_000, 2)).fields("(data (i32.const 2000) \"42\")").module();
    let load = || Sandbox::new(2, cache.path()).unwrap().load(&module).unwrap();
    load();
    let file = compiled(cache.path());
    let good = fs::read(&file).unwrap();
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(output(&run_one(&load(), limits(), "{}").await), "42");
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written, "it was compiled again");
    let flipped = |at: usize| {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        damaged
    };
    let mut damages =
        vec![Vec::new(), good[..10].to_vec(), good[..good.len() / 2].to_vec(), good[..good.len() - 1].to_vec(), b"<html>".repeat(1_000)];
    damages.extend((0..good.len()).step_by(good.len() / 50).map(flipped));
    damages.push(good.iter().copied().chain([0]).collect());
    for damaged in damages {
        fs::write(&file, &damaged).unwrap();
        assert_eq!(output(&run_one(&load(), limits(), "{}").await), "42");
        assert!(fs::read(compiled(cache.path())).unwrap() == good, "the damaged file was used");
    }
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_and_nothing_else() {
    let cache = TempDir::new().unwrap();
    let sandbox = Sandbox::new(2, cache.path()).unwrap();
    fs::remove_dir_all(cache.path()).unwrap();
    assert!(sandbox.load(&Wat::batch().module()).is_ok());
    assert!(!cache.path().exists());
}

#[test]
fn many_threads_that_load_the_same_file_at_once_all_get_it() {
    let cache = TempDir::new().unwrap();
    let module = guests::read("bank-transactions");
    let sandbox = Sandbox::new(2, cache.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| sandbox.load(&module).unwrap());
        }
    });
    let good = fs::read(compiled(cache.path())).unwrap();
    assert!(good.len() > 100_000);
    Sandbox::new(2, cache.path()).unwrap().load(&module).unwrap();
}

fn keyed(cache: &TempDir, key: &str) -> Sandbox {
    Sandbox::open(SandboxSettings { key: Some(key.as_bytes().to_vec()), ..SandboxSettings::new(2, cache.path()) }).unwrap()
}

/// Each of these is a file with a valid seal: for another upload, by another installation, for another engine.
#[tokio::test]
async fn comp_3_compiled_code_of_others_is_compiled_again_and_not_run() {
    let cache = TempDir::new().unwrap();
    let module =
        |answered: &str| Wat::batch().body("process-row", &answer(2_000, 2)).fields(&format!("(data (i32.const 2000) \"{answered}\")")).module();
    let (ours, other) = (module("42"), module("13"));
    let sandbox = keyed(&cache, "key");
    let digest = sandbox.load(&ours).unwrap().digest;
    let file = compiled(cache.path());
    let good = fs::read(&file).unwrap();
    let elsewhere = TempDir::new().unwrap();
    keyed(&elsewhere, "key").load(&other).unwrap();
    let of_another_upload = fs::read(compiled(elsewhere.path())).unwrap();
    let elsewhere = TempDir::new().unwrap();
    keyed(&elsewhere, "another").load(&ours).unwrap();
    let of_another_key = fs::read(compiled(elsewhere.path())).unwrap();
    let elsewhere = TempDir::new().unwrap();
    Sandbox::new(2, elsewhere.path()).unwrap().load(&ours).unwrap();
    let of_its_own_key = fs::read(compiled(elsewhere.path())).unwrap();
    for planted in [of_another_upload, of_another_key, of_its_own_key] {
        fs::write(&file, &planted).unwrap();
        assert!(sandbox.load_compiled(&digest).is_none(), "it was run");
        assert!(sandbox.load_sealed(&digest, &planted).is_none(), "it was run");
        assert_eq!(sandbox.sealed(&digest), None, "it was given to others");
        assert_eq!(output(&run_one(&sandbox.load(&ours).unwrap(), limits(), "{}").await), "42");
        assert!(fs::read(&file).unwrap() == good);
    }
    // The name says for which engine it is, and the seal does, too.
    assert!(file.file_name().unwrap().to_str().unwrap().contains(&sandbox.engine_hash()[..16]));
}

#[tokio::test]
async fn what_a_process_sealed_another_with_the_same_key_runs() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let module = Wat::batch().module();
    let (one, two) = (keyed(&here, "key"), keyed(&there, "key"));
    let digest = one.load(&module).unwrap().digest;
    let sealed = one.sealed(&digest).unwrap();
    assert!(two.load_compiled(&digest).is_none());
    let processor = two.load_sealed(&digest, &sealed).unwrap().unwrap();
    assert_eq!(output(&run_one(&processor, limits(), "{}").await), "{}");
    assert!(two.load_compiled(&digest).is_some(), "it is in its cache now");
    assert_eq!(keyed(&here, "another").sealed(&digest), None);
    for no_digest in ["", "../../etc/passwd", &digest[1..], &digest.to_uppercase()] {
        assert!(two.load_sealed(no_digest, &sealed).is_none() && two.load_compiled(no_digest).is_none());
    }
    // With a key of its own a process has nothing for others.
    let alone = TempDir::new().unwrap();
    let alone = Sandbox::new(2, alone.path()).unwrap();
    alone.load(&module).unwrap();
    assert!(alone.sealed(&digest).is_none() && !alone.shares_code());
}

/// A cache that has room for so many bytes of compiled code.
fn bounded(cache: &TempDir, cache_max_bytes: u64) -> Sandbox {
    Sandbox::open(SandboxSettings { cache_max_bytes, ..SandboxSettings::new(2, cache.path()) }).unwrap()
}

/// A module that answers this, of two characters. All have the same size.
fn answering(text: &str) -> Vec<u8> {
    Wat::batch().body("process-row", &answer(2_000, 2)).fields(&format!("(data (i32.const 2000) \"{text}\")")).module()
}

#[tokio::test]
async fn the_least_recently_used_code_is_removed_and_whoever_has_loaded_it_goes_on() {
    let cache = TempDir::new().unwrap();
    let (one, two, three) = (answering("11"), answering("22"), answering("33"));
    let first = Sandbox::new(2, cache.path()).unwrap().load(&one).unwrap();
    // Room for two of them, and not for three.
    let size = fs::metadata(compiled(cache.path())).unwrap().len();
    let sandbox = bounded(&cache, size * 5 / 2);
    let second = sandbox.load(&two).unwrap();
    assert!(sandbox.load_compiled(&first.digest).is_some(), "this is its last use");
    let third = sandbox.load(&three).unwrap();
    let kept = |digest: &str| fs::read_dir(cache.path()).unwrap().any(|file| file.unwrap().file_name().to_str().unwrap().starts_with(digest));
    assert_eq!([&first, &second, &third].map(|processor| kept(&processor.digest)), [true, false, true]);
    // The code that was removed is mapped, and runs; it is compiled again when it is loaded again.
    assert_eq!(output(&run_one(&second, limits(), "{}").await), "22");
    assert!(sandbox.load_compiled(&second.digest).is_none());
    assert_eq!(output(&run_one(&sandbox.load(&two).unwrap(), limits(), "{}").await), "22");
    assert_eq!([&first, &second, &third].map(|processor| kept(&processor.digest)), [false, true, true]);
    assert_eq!(output(&run_one(&first, limits(), "{}").await), "11");
}

#[tokio::test]
async fn code_that_is_larger_than_the_cache_is_kept_alone() {
    let cache = TempDir::new().unwrap();
    let sandbox = bounded(&cache, 1);
    for text in ["11", "22"] {
        let processor = sandbox.load(&answering(text)).unwrap();
        assert!(compiled(cache.path()).to_str().unwrap().contains(&processor.digest));
        assert_eq!(output(&run_one(&processor, limits(), "{}").await), text);
    }
}

/// Code of other versions of the program, and what a process that was killed left.
#[test]
fn a_cache_is_made_to_fit_when_it_is_opened() {
    let cache = TempDir::new().unwrap();
    Sandbox::new(2, cache.path()).unwrap();
    let write = |name: &str, hours: u64| {
        let file = fs::File::create(cache.path().join(name)).unwrap();
        file.set_len(1_000).unwrap();
        let then = SystemTime::now() - Duration::from_secs(hours * 3_600);
        file.set_times(FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
    };
    let digest = "0".repeat(64);
    for (name, hours) in [("old", 30), ("older", 40), ("recent", 1)] {
        write(&format!("{digest}-{name}.cwasm"), hours);
    }
    for (name, hours) in [("left", 2), ("being-written", 0)] {
        write(&format!("{digest}-new.{name}.part"), hours);
    }
    write("a file of somebody else", 99);
    bounded(&cache, 2_500);
    let mut names: Vec<String> = fs::read_dir(cache.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let kept = ["new.being-written.part", "old.cwasm", "recent.cwasm"].map(|name| format!("{digest}-{name}"));
    assert_eq!(names, [&kept[..], &["a file of somebody else".to_owned(), "key".to_owned()]].concat());
}
