//! The list of attacks against what there is: tests, and the table in the documentation.

use std::fs;
use std::path::{Path, PathBuf};

use rowmill_tests::attacks::ATTACKS;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
    let below = directories.iter().flat_map(|directory| rust_files(directory));
    files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs")).chain(below).collect()
}

#[test]
fn each_attack_has_a_test_and_each_test_with_an_id_an_attack() {
    let sources: Vec<String> = rust_files(&root().join("tests/suite")).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let functions = sources.iter().flat_map(|source| source.lines()).filter_map(|line| {
        let (name, _) = line.trim().trim_start_matches("async ").strip_prefix("fn ")?.split_once('(')?;
        Some(name)
    });
    let functions: Vec<&str> = functions.collect();
    for attack in ATTACKS {
        assert!(functions.iter().any(|name| attack.is_tested_by(name)), "{} has no test: its name would begin with {}", attack.id, attack.prefix());
    }
    let families: Vec<&str> = ATTACKS.iter().filter_map(|attack| attack.id.split('-').next()).collect();
    for name in functions {
        let mut parts = name.split('_');
        let (family, number) = (parts.next().unwrap_or_default().to_uppercase(), parts.next().unwrap_or_default());
        let has_id = families.contains(&family.as_str()) && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        assert!(!has_id || ATTACKS.iter().any(|attack| attack.is_tested_by(name)), "{name} is of no attack in the list");
    }
}

#[test]
fn the_documentation_has_the_table_of_attacks() {
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap();
    for attack in ATTACKS {
        let row = format!("| {} | {} | {} | ", attack.id, attack.attack, attack.expected);
        let shown = text.lines().find(|line| line.starts_with(&format!("| {} ", attack.id)));
        let shown = shown.unwrap_or_else(|| panic!("docs/security.md does not name {}", attack.id));
        assert!(shown.starts_with(&row), "docs/security.md says\n{shown}\nand the list\n{row}: run `make attacks` and put its table there");
        assert!(shown.contains("survived"), "{shown}");
    }
}
