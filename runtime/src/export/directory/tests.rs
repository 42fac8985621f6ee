use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::export::SUMMARY;

/// A result by the paths and texts of its files.
type Files = [(&'static str, &'static str)];

const FIRST: &Files = &[("failed.csv", "1"), ("files/a.csv", "2"), ("files/b/c.csv", "3"), ("results.ndjson", "4"), (SUMMARY, "5")];
const SECOND: &Files = &[("files/a.csv", "6"), ("files/z.csv", "7"), ("results.ndjson", "8"), (SUMMARY, "9")];

fn stage(out: &OutputDirectory, batch: BatchId, files: &Files) -> Manifest {
    let staged = out.stage().unwrap();
    for (path, text) in files {
        if let Some(parent) = Path::new(path).parent() {
            staged.create_dir_all(parent).unwrap();
        }
        staged.write(path, text).unwrap();
    }
    let listed = out.staged_files().unwrap();
    assert_eq!(listed.last().map(|last| last.path.as_str()), Some(SUMMARY));
    Manifest::new(batch, ResultKind::Results, listed)
}

/// Writes a result as a command does.
fn write(path: &Path, batch: BatchId, files: &Files, overwrite: bool) -> anyhow::Result<()> {
    let out = OutputDirectory::open_for(path, (batch, ResultKind::Results), overwrite)?;
    let manifest = stage(&out, batch, files);
    out.commit(&manifest, overwrite)?;
    out.close()
}

/// All files of a directory but the manifest.
fn contents(path: &Path) -> BTreeMap<String, String> {
    let root = Dir::open_ambient_dir(path, ambient_authority()).unwrap();
    let files = contents::list_files(&root).unwrap().into_iter().filter(|file| file.path != MANIFEST);
    files.map(|file| (file.path.clone(), root.read_to_string(&file.path).unwrap())).collect()
}

fn wanted(files: &Files) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn refused(result: anyhow::Result<()>, sentence: &str) {
    let error = result.expect_err(sentence);
    assert!(format!("{error:#}").contains(sentence), "{error:#}");
}

#[test]
fn a_result_is_made_anew_and_nothing_of_the_one_before_stays() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("new/out");
    let batch = BatchId::generate();
    write(&path, batch, FIRST, false).unwrap();
    assert_eq!(contents(&path), wanted(FIRST));
    write(&path, batch, SECOND, false).unwrap();
    assert_eq!(contents(&path), wanted(SECOND));
    assert!(!path.join("files/b").exists() && !path.join(WORK).exists());
    let manifest = read_output(&path).unwrap().unwrap();
    assert_eq!((manifest.batch, manifest.files.len()), (batch, SECOND.len()));
    // A file that somebody removed is not missed.
    fs::remove_file(path.join("files/z.csv")).unwrap();
    write(&path, batch, FIRST, false).unwrap();
    assert_eq!(contents(&path), wanted(FIRST));
}

#[test]
fn another_result_is_replaced_only_when_it_is_asked_for() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("out");
    let (batch, other) = (BatchId::generate(), BatchId::generate());
    write(&path, batch, FIRST, false).unwrap();
    refused(write(&path, other, SECOND, false), &format!("holds the results of batch {batch}"));
    refused(check_output(&path, Some((batch, ResultKind::Export)), false), "--overwrite");
    assert_eq!(contents(&path), wanted(FIRST));
    write(&path, other, SECOND, true).unwrap();
    assert_eq!(contents(&path), wanted(SECOND));
}

#[test]
fn files_of_others_and_changed_files_are_never_replaced() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("out");
    let batch = BatchId::generate();
    write(&path, batch, FIRST, false).unwrap();
    let again = || write(&path, batch, SECOND, true);
    for foreign in ["notes.txt", "files/mine.csv", ".hidden"] {
        fs::write(path.join(foreign), "mine").unwrap();
        refused(again(), &format!("holds {foreign}, which is not of a result"));
        fs::remove_file(path.join(foreign)).unwrap();
    }
    fs::create_dir(path.join("empty")).unwrap();
    refused(again(), "holds empty, which");
    fs::remove_dir(path.join("empty")).unwrap();
    // As large as before, larger, a link, a directory.
    for (name, text, before) in [("failed.csv", "x", "1"), ("results.ndjson", "4\n", "4")] {
        fs::write(path.join(name), text).unwrap();
        refused(again(), &format!("{name} in {} was changed since", path.display()));
        fs::write(path.join(name), before).unwrap();
    }
    let (file, away) = (path.join("failed.csv"), place.path().join("away"));
    fs::rename(&file, &away).unwrap();
    std::os::unix::fs::symlink(&away, &file).unwrap();
    refused(again(), "failed.csv in");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused(again(), "failed.csv");
    fs::remove_dir(&file).unwrap();
    fs::rename(&away, &file).unwrap();
    assert_eq!(contents(&path), wanted(FIRST));
    assert!(!path.join(WORK).exists(), "a refusal leaves nothing");
    // A directory without a manifest.
    let foreign = place.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("results.ndjson"), "").unwrap();
    refused(write(&foreign, batch, FIRST, true), "holds results.ndjson, which");
}

#[test]
fn a_manifest_leads_out_of_no_directory() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("out");
    fs::create_dir(&path).unwrap();
    fs::write(place.path().join("precious"), "1").unwrap();
    let batch = BatchId::generate();
    let file = |path: &str| super::super::ExportedFile {
        path: path.to_owned(),
        size_bytes: 1,
        sha256: "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b".to_owned(),
    };
    let absolute = place.path().join("precious");
    for outside in ["../precious", absolute.to_str().unwrap()] {
        let manifest = Manifest::new(batch, ResultKind::Results, vec![file(outside)]);
        fs::write(path.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert!(write(&path, batch, FIRST, true).is_err(), "{outside}");
        assert!(place.path().join("precious").exists());
    }
}

/// The moves of a replacement, one after the other, as a process makes them that is killed between.
fn moves(out: &OutputDirectory) -> Vec<Box<dyn Fn() + '_>> {
    let staged = || out.work.open_dir(STAGED).unwrap();
    let mut moves: Vec<Box<dyn Fn() + '_>> = vec![Box::new(|| out.out.remove_file(MANIFEST).unwrap())];
    for gone in ["failed.csv", "files/b/c.csv"] {
        moves.push(Box::new(move || out.out.remove_file(gone).unwrap()));
    }
    for (path, _) in SECOND {
        moves.push(Box::new(move || staged().rename(path, &out.out, path).unwrap()));
    }
    moves.push(Box::new(|| out.out.remove_dir("files/b").unwrap()));
    moves.push(Box::new(move || staged().rename(MANIFEST, &out.out, MANIFEST).unwrap()));
    moves
}

#[test]
fn a_replacement_that_was_killed_anywhere_is_completed_by_the_next_process() {
    let batch = BatchId::generate();
    for killed_after in 0..=9 {
        let place = TempDir::new().unwrap();
        let path = place.path().join("out");
        write(&path, batch, FIRST, false).unwrap();
        let out = OutputDirectory::open(&path).unwrap();
        let manifest = stage(&out, batch, SECOND);
        let staged = out.work.open_dir(STAGED).unwrap();
        write_whole(&staged, MANIFEST, &manifest).unwrap();
        write_whole(&out.work, JOURNAL, &Journal { replaces: read_output(&path).unwrap() }).unwrap();
        let moves = moves(&out);
        assert_eq!(moves.len(), 9);
        moves.iter().take(killed_after).for_each(|step| step());
        drop(moves);
        drop(out);
        // The next process has the result of the one before, and writes its own.
        let out = OutputDirectory::open(&path).unwrap();
        assert_eq!(read_output(&path).unwrap(), Some(manifest), "after {killed_after}");
        assert!(!out.has_state().unwrap());
        out.close().unwrap();
        assert_eq!(contents(&path), wanted(SECOND), "after {killed_after}");
        assert!(!path.join("files/b").exists());
    }
}

#[test]
fn a_file_that_was_changed_before_a_replacement_is_completed_stays() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("out");
    let batch = BatchId::generate();
    write(&path, batch, FIRST, false).unwrap();
    let out = OutputDirectory::open(&path).unwrap();
    let manifest = stage(&out, batch, SECOND);
    let staged = out.work.open_dir(STAGED).unwrap();
    write_whole(&staged, MANIFEST, &manifest).unwrap();
    write_whole(&out.work, JOURNAL, &Journal { replaces: read_output(&path).unwrap() }).unwrap();
    drop(out);
    fs::write(path.join("failed.csv"), "corrected").unwrap();
    fs::write(path.join("files/z.csv"), "mine").unwrap();
    refused(OutputDirectory::open(&path).map(drop), "failed.csv in");
    fs::remove_file(path.join("failed.csv")).unwrap();
    refused(OutputDirectory::open(&path).map(drop), "files/z.csv was made in");
    assert_eq!(fs::read_to_string(path.join("files/z.csv")).unwrap(), "mine");
    fs::remove_file(path.join("files/z.csv")).unwrap();
    OutputDirectory::open(&path).unwrap().close().unwrap();
    assert_eq!(contents(&path), wanted(SECOND));
}

#[test]
fn one_that_was_killed_before_it_replaced_anything_leaves_the_earlier_result() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("out");
    let batch = BatchId::generate();
    write(&path, batch, FIRST, false).unwrap();
    let out = OutputDirectory::open(&path).unwrap();
    stage(&out, batch, SECOND);
    refused(OutputDirectory::open(&path).map(drop), "another process works on it");
    drop(out);
    assert_eq!(read_output(&path).unwrap().unwrap().files.len(), FIRST.len());
    write(&path, batch, SECOND, false).unwrap();
    assert_eq!(contents(&path), wanted(SECOND));
    // The state of a run is not removed by other commands.
    fs::create_dir(path.join(WORK)).unwrap();
    fs::write(path.join(WORK).join("run.json"), "{}").unwrap();
    refused(write(&path, batch, FIRST, true), "holds a run that is not finished");
    assert!(path.join(WORK).join("run.json").exists());
}

#[test]
fn a_journal_that_names_other_files_is_refused_and_removes_nothing() {
    let place = TempDir::new().unwrap();
    let path = place.path().join("out");
    let batch = BatchId::generate();
    let sum = |name: &str, text: &str| {
        fs::create_dir_all(path.join(WORK).join(STAGED)).unwrap();
        fs::write(path.join(name), text).unwrap();
        let out = Dir::open_ambient_dir(&path, ambient_authority()).unwrap();
        contents::list_files(&out).unwrap().into_iter().find(|file| file.path == name).unwrap()
    };
    let mine = sum("notes.txt", "mine");
    let planted = |files| Manifest::new(batch, ResultKind::Results, files);
    let work = Dir::open_ambient_dir(path.join(WORK), ambient_authority()).unwrap();
    let staged = work.open_dir(STAGED).unwrap();
    write_whole(&staged, MANIFEST, &planted(Vec::new())).unwrap();
    for name in ["notes.txt", "../out/notes.txt", "files/../notes.txt", "/etc/passwd"] {
        let file = super::super::ExportedFile { path: name.to_owned(), ..mine.clone() };
        write_whole(&work, JOURNAL, &Journal { replaces: Some(planted(vec![file.clone()])) }).unwrap();
        refused(OutputDirectory::open(&path).map(drop), "which is no file of a result");
        write_whole(&work, JOURNAL, &Journal { replaces: None }).unwrap();
        write_whole(&staged, MANIFEST, &planted(vec![file])).unwrap();
        refused(OutputDirectory::open(&path).map(drop), "since manifest.json in");
        write_whole(&staged, MANIFEST, &planted(Vec::new())).unwrap();
    }
    for text in ["", "{", "[]", "{\"replaces\":{\"batch\":1}}"] {
        fs::write(path.join(WORK).join(JOURNAL), text).unwrap();
        let sentence = "journal.json in";
        refused(OutputDirectory::open(&path).map(drop), sentence);
        refused(OutputDirectory::open(&path).map(drop), "and remove ");
    }
    // A manifest that names it is refused, too, also when the result is to be replaced.
    fs::remove_dir_all(path.join(WORK)).unwrap();
    let out = Dir::open_ambient_dir(&path, ambient_authority()).unwrap();
    write_whole(&out, MANIFEST, &planted(vec![mine])).unwrap();
    refused(check_output(&path, None, true), "it names \"notes.txt\", which is no file of a result");
    assert_eq!(fs::read_to_string(path.join("notes.txt")).unwrap(), "mine");
}
