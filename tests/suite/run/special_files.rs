//! Files of Rowmill's own that are no files: a FIFO, a device or a link in their place is refused
//! with a sentence, and is not waited for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::{directory_with, ended, rowmill};

fn run(directory: &Path, options: &[&str]) -> (i32, String) {
    ended(rowmill(directory, "misbehaving").args(["--input", "rows.ndjson"]).args(options))
}

fn fifo(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

#[test]
fn what_stands_in_the_place_of_a_file_of_an_output_directory_is_not_waited_for() {
    let manifest = "out/manifest.json is there and is not the manifest of a result: move it away, or choose another directory: ";
    let journal = "since journal.json in out/.rowmill is not one that rowmill wrote";
    let record = "cannot read out/.rowmill/run.json: ";
    for (name, option, said) in [
        ("out/manifest.json", "--overwrite", manifest),
        ("out/manifest.json", "--resume", manifest),
        ("out/.rowmill/lock", "--overwrite", "cannot lock out: "),
        ("out/.rowmill/journal.json", "--overwrite", journal),
        ("out/.rowmill/run.json", "--resume", record),
    ] {
        for kind in ["FIFO", "device"] {
            let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
            let place = directory.path().join(name);
            fifo(&place);
            if kind == "device" {
                fs::remove_file(&place).unwrap();
                symlink("/dev/zero", &place).unwrap();
            }
            let (status, error) = run(directory.path(), &[option]);
            let problem = "it is not a regular file";
            assert!(status == 2 && error.contains(said) && error.contains(problem), "{name} as a {kind}: {error}");
            assert!(fs::symlink_metadata(&place).is_ok(), "{name}");
        }
    }
}

#[test]
fn a_manifest_is_read_up_to_its_limit() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    fs::create_dir(directory.path().join("out")).unwrap();
    fs::File::create(directory.path().join("out/manifest.json")).unwrap().set_len((64 << 20) + 1).unwrap();
    let (status, error) = run(directory.path(), &[]);
    assert!(status == 2 && error.contains("is not the manifest of a result") && error.contains("it is larger than 65536 KiB"), "{error}");
}

/// A part of a file that a run writes is made anew, whatever has its name.
#[test]
fn what_has_the_name_of_a_part_is_replaced() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    for name in ["run.part", "journal.json.part"] {
        fifo(&directory.path().join("out/.rowmill").join(name));
    }
    let (status, error) = run(directory.path(), &["--overwrite"]);
    assert_eq!(status, 0, "{error}");
}

#[test]
fn compiled_code_that_is_no_file_is_made_again() {
    let directory = directory_with("rows.ndjson", b"{\"do\":\"ok\"}\n");
    let cache = TempDir::new().unwrap();
    let run = || {
        let mut command = rowmill(directory.path(), "misbehaving");
        ended(command.env("ROWMILL_CACHE_DIR", cache.path()).args(["--input", "rows.ndjson", "--overwrite"]))
    };
    assert_eq!(run().0, 0);
    let names = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
    let code = names.into_iter().find(|path| path.extension().is_some_and(|end| end == "cwasm")).unwrap();
    fs::remove_file(&code).unwrap();
    fifo(&code);
    fifo(&code.with_extension("lock"));
    let (status, error) = run();
    assert_eq!(status, 0, "{error}");
    assert!(error.contains("it is not a regular file"), "{error}");
    assert!(fs::metadata(&code).unwrap().is_file());
    fs::remove_file(cache.path().join("key")).unwrap();
    fifo(&cache.path().join("key"));
    let (status, error) = run();
    assert!(status == 2 && error.contains("it is not a regular file"), "{error}");
}
