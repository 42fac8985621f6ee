//! The processors of the README and of the pages for authors, built and run as the pages say.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{ended, guests, target};

/// Amounts as people send them, and the fee of 0.25 % in cents. Without a fee the row fails.
const AMOUNTS: [(&str, Option<i64>); 20] = [
    ("0.01", Some(0)),
    ("1.99", Some(0)),
    ("2", Some(1)),
    ("100.5", Some(25)),
    ("-0", Some(0)),
    ("0000.00", Some(0)),
    ("99999999999.99", Some(25_000_000_000)),
    ("-5", None),
    ("", None),
    ("NaN", None),
    ("inf", None),
    ("Infinity", None),
    ("1e300", None),
    ("1e2", None),
    ("0x10", None),
    ("1_000", None),
    ("\"1,50\"", None),
    (" 5", None),
    ("0.001", None),
    ("٣", None),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The first block of a language behind a heading.
fn block<'a>(text: &'a str, heading: &str, language: &str) -> &'a str {
    let behind = &text[text.find(heading).unwrap()..];
    let begin = behind.find(&format!("```{language}\n")).unwrap() + language.len() + 4;
    &behind[begin..begin + behind[begin..].find("```").unwrap()]
}

/// Runs commands of a page in bash; the status and stderr.
fn shell(commands: &str, from: &Path) -> (i32, String) {
    let mut bash = Command::new("bash");
    bash.args(["-euc", commands]).current_dir(from).env("CARGO_TARGET_DIR", target().join("readme"));
    ended(bash.env("ROWMILL", root()).env("ROWMILL_CACHE_DIR", guests::cache()))
}

/// Names the program that the tests have built, wherever cargo builds.
fn with_built_program(commands: &str, program: &str) -> String {
    commands.replace(program, &target().join("release/rowmill").display().to_string())
}

/// Runs a processor over [`AMOUNTS`] and compares each fee, read from an output by `fee_of`. A row that fails names the field and the value.
fn check_amounts(directory: &Path, processor: &Path, fee_of: impl Fn(&Value) -> i64) {
    let mut csv = String::from("account,amount\n");
    for (number, (amount, _)) in AMOUNTS.iter().enumerate() {
        writeln!(csv, "A{number},{amount}").unwrap();
    }
    fs::write(directory.join("odd.csv"), csv).unwrap();
    let mut rowmill = Command::new(target().join("release/rowmill"));
    rowmill.current_dir(directory).env("ROWMILL_CACHE_DIR", guests::cache());
    let (status, stderr) = ended(rowmill.args(["run", "--input", "odd.csv", "--out", "odd", "--processor"]).arg(processor));
    assert_eq!(status, 1, "{stderr}");
    let results = fs::read_to_string(directory.join("odd/results.ndjson")).unwrap();
    let results: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), AMOUNTS.len());
    for (row, (amount, fee)) in results.iter().zip(AMOUNTS) {
        let (status, message) = (&row["status"], &row["messages"][0]);
        match fee {
            Some(fee) => assert_eq!((status.as_str(), fee_of(&row["output"])), (Some("success"), fee), "{amount}: {row}"),
            None => {
                assert_eq!((status.as_str(), message["field"].as_str()), (Some("failed"), Some("amount")), "{amount}: {row}");
                let told = message["values"].to_string();
                let shown = if amount.is_empty() { told.len() > 2 } else { told.contains(amount.trim_matches('"')) };
                assert!(shown, "{amount}: {row}");
            }
        }
    }
}

/// A crate with the README's processor, and the directory it is in.
fn crate_of_the_readme(readme: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    // The commands name the clone as ../rowmill.
    std::os::unix::fs::symlink(root(), directory.path().join("rowmill")).unwrap();
    let crate_directory = directory.path().join("fees");
    let heading = "## Your own processor in ten minutes";
    let (status, stderr) = shell(block(readme, heading, "sh"), directory.path());
    assert_eq!(status, 0, "{stderr}");
    fs::write(crate_directory.join("src/lib.rs"), block(readme, heading, "rust")).unwrap();
    // The lock file keeps the crate to the versions that this repository was built with.
    fs::copy(root().join("Cargo.lock"), crate_directory.join("Cargo.lock")).unwrap();
    (directory, crate_directory)
}

#[test]
fn the_processor_of_the_readme_is_built_and_run_in_its_words() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_directory, crate_directory) = crate_of_the_readme(&readme);
    let build_and_run = block(&readme, "Build it and run it", "sh");
    // Cargo was told to build elsewhere, to find what it built before.
    let commands = with_built_program(build_and_run, "../rowmill/target/release/rowmill").replace("target/wasm32", "$CARGO_TARGET_DIR/wasm32");
    let (status, stderr) = shell(&commands, &crate_directory);
    assert_eq!(status, 1, "{stderr}");
    let read = |name: &str| fs::read_to_string(crate_directory.join("amounts.results").join(name)).unwrap();
    let promised = block(&readme, "It ends with status 1", "text");
    for line in read("failed.csv").lines() {
        assert!(promised.contains(line), "{line}");
    }
    assert!(read("results.ndjson").starts_with(r#"{"line":1,"status":"success","output":{"account":"A1","fee":"0.25"},"#));
    assert_eq!(read("files/fees.csv"), "A1,0.25\n");
    let processor = target().join("readme/wasm32-unknown-unknown/release/fees.wasm");
    check_amounts(&crate_directory, &processor, |output| output["fee"].as_str().unwrap().replace('.', "").parse().unwrap());
}

#[test]
fn each_rust_block_of_the_page_for_rust_compiles_and_its_tests_pass() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let page = fs::read_to_string(root().join("docs/writing-processors-rust.md")).unwrap();
    let (_directory, crate_directory) = crate_of_the_readme(&readme);
    let granted = block(&page, "## What an operator grants", "rust");
    let checker = block(&page, "## Checkers of files", "rust");
    let library = [
        block(&readme, "## Your own processor in ten minutes", "rust"),
        block(&page, "## Test", "rust"),
        &format!("pub mod granted {{\n{granted}\npub fn used() {{ let _ = check; }}\n}}\n"),
        "#[cfg(test)]\nmod checkers {\nuse rowmill_guest::testing;\nuse serde_json::json;\nuse transactions_check::TransactionsCheck;\n#[test]\nfn a_checker() {\n",
        checker,
        "}\n}\n",
    ];
    fs::write(crate_directory.join("src/lib.rs"), library.concat()).unwrap();
    let manifest = fs::read_to_string(crate_directory.join("Cargo.toml")).unwrap();
    // The page's own manifest, instead of the README's.
    let (head, _) = manifest.split_once("[lib]").unwrap();
    fs::write(crate_directory.join("Cargo.toml"), format!("{head}{}", block(&page, "## Build", "toml"))).unwrap();
    let commands = "cargo add --dev serde_json\ncargo add --dev --path ../rowmill/examples-guests/transactions-check\ncargo test";
    let (status, stderr) = shell(commands, &crate_directory);
    assert_eq!(status, 0, "{stderr}");
}

/// Runs the commands of a page but for those that install the tool, which `make guests` has installed already, and then the amounts.
fn check_page(name: &str, source: &str, language: &str, tool: (&str, &str), installs: &[&str]) {
    let page = fs::read_to_string(root().join("docs").join(name)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let heading = "## Build and run one";
    fs::write(directory.path().join(source), block(&page, heading, language)).unwrap();
    let is_kept = |line: &&str| !installs.iter().any(|install| line.starts_with(install));
    let commands: Vec<&str> = block(&page, heading, "sh").lines().filter(is_kept).collect();
    let tools = root().join("target/tools").join(tool.1).display().to_string();
    let commands = with_built_program(&commands.join("\n").replace(tool.0, &tools), "$ROWMILL/target/release/rowmill");
    let (status, stderr) = shell(&commands, directory.path());
    assert_eq!(status, 1, "{stderr}");
    let fees = fs::read_to_string(directory.path().join("amounts.results/files/fees.csv")).unwrap();
    assert_eq!(fees, "A1,25\n");
    check_amounts(directory.path(), Path::new("fees.wasm"), |output| output["fee_cents"].as_i64().unwrap());
}

#[test]
fn the_processor_of_the_page_for_python_is_built_and_run_in_its_words() {
    let tool = (".venv/bin/componentize-py", "invoice-totals-python/bin/componentize-py");
    check_page("writing-processors-python.md", "app.py", "python", tool, &["python3 -m venv", ".venv/bin/pip"]);
}

#[test]
fn the_processor_of_the_page_for_javascript_is_built_and_run_in_its_words() {
    let tool = ("npx componentize-qjs", "invoice-totals-javascript/node_modules/.bin/componentize-qjs");
    check_page("writing-processors-javascript.md", "app.js", "js", tool, &["npm install"]);
}

/// A directory with the tools of the page for Python in `.venv`, and `parcels`, which pip would have installed there.
fn python_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let packages = directory.path().join(".venv/lib/python3/site-packages");
    fs::create_dir_all(&packages).unwrap();
    fs::write(packages.join("parcels.py"), "import ssl\n\n\ndef count(pieces):\n    return -(-pieces // 10)\n").unwrap();
    std::os::unix::fs::symlink(root().join("target/tools/invoice-totals-python/bin"), directory.path().join(".venv/bin")).unwrap();
    directory
}

/// The result of each row of a run of the program over `rows`, in order.
fn run_rows(directory: &Path, processor: &str, rows: &str) -> Vec<Value> {
    fs::write(directory.join("rows.ndjson"), rows).unwrap();
    let mut rowmill = Command::new(target().join("release/rowmill"));
    rowmill.current_dir(directory).env("ROWMILL_CACHE_DIR", guests::cache());
    let (_, stderr) =
        ended(rowmill.args(["run", "--input", "rows.ndjson", "--overwrite", "--out", "out", "--timeout", "1h", "--processor", processor]));
    let results = fs::read_to_string(directory.join("out/results.ndjson")).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    results.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_the_page_for_python_says_of_imports_files_and_packages_holds() {
    let page = fs::read_to_string(root().join("docs/writing-processors-python.md")).unwrap();
    let heading = "## What is imported, and when";
    let directory = python_directory();
    let app = block(&page, heading, "python");
    fs::write(directory.path().join("app.py"), app).unwrap();
    let commands = with_built_program(block(&page, heading, "sh"), "$ROWMILL/target/release/rowmill");
    let (status, stderr) = shell(&commands, directory.path());
    assert_eq!(status, 0, "{stderr}");
    let results = fs::read_to_string(directory.path().join("parcels.results/results.ndjson")).unwrap();
    let row: Value = serde_json::from_str(&results).unwrap();
    let expected = serde_json::json!({"day": "2026-01-31", "bytes": 3, "host": "xn--bcher-kva.example", "price": 57});
    assert_eq!(row["output"], expected, "{row}");
    // Without the imports that the page names, right code fails.
    let late: Vec<&str> = app.lines().filter(|line| !line.starts_with("import _strptime") && !line.starts_with("import encodings.")).collect();
    fs::write(directory.path().join("app.py"), late.join("\n")).unwrap();
    let build = commands.lines().filter(|line| line.contains("componentize-py") || line.starts_with("export"));
    let (status, stderr) = shell(&build.collect::<Vec<_>>().join("\n"), directory.path());
    assert_eq!(status, 0, "{stderr}");
    let rows = fs::read_to_string(directory.path().join("parcels.ndjson")).unwrap();
    let told = run_rows(directory.path(), "parcels.wasm", &rows)[0]["messages"][0]["values"].to_string();
    assert!(told.contains("ModuleNotFoundError: No module named '_strptime'") && told.contains("process_row (app.py:"), "{told}");
}

#[test]
fn a_processor_in_python_is_tested_without_the_sandbox_as_its_page_says() {
    let page = fs::read_to_string(root().join("docs/writing-processors-python.md")).unwrap();
    let directory = python_directory();
    fs::write(directory.path().join("app.py"), block(&page, "## Build and run one", "python")).unwrap();
    fs::write(directory.path().join("test_app.py"), block(&page, "## Test", "python")).unwrap();
    let (status, stderr) = shell(block(&page, "## Test", "sh"), directory.path());
    assert!(status == 0 && stderr.contains("Ran 2 tests"), "{stderr}");
}

#[test]
fn mistakes_in_python_and_javascript_are_told_as_their_pages_say() {
    let heading = "## Mistakes with their places";
    let tools = root().join("target/tools");
    for (page, file, language, helper, build, sentences) in [
        (
            "writing-processors-python.md",
            "app.py",
            "python",
            "python/rowmill.py",
            format!("{}/invoice-totals-python/bin/componentize-py -d $ROWMILL/wit -w batch-processor componentize app -o app.wasm", tools.display()),
            ["TypeError: Outcome.output should be a str of JSON, as json.dumps makes it, and is dict ", "in process_row (app.py:25)"],
        ),
        (
            "writing-processors-javascript.md",
            "app.js",
            "js",
            "javascript/rowmill.js",
            format!(
                "{}/invoice-totals-javascript/node_modules/.bin/componentize-qjs --sync -w $ROWMILL/wit -n batch-processor -j app.js -o app.wasm",
                tools.display()
            ),
            ["what processRow returned.output should be a text of JSON, as JSON.stringify makes it, and is of type object", "processRow (app.js:8)"],
        ),
    ] {
        let text = fs::read_to_string(root().join("docs").join(page)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(file), block(&text, heading, language)).unwrap();
        let helper = root().join("guest-sdk").join(helper);
        fs::copy(&helper, directory.path().join(helper.file_name().unwrap())).unwrap();
        let (status, stderr) = shell(&build, directory.path());
        assert_eq!(status, 0, "{stderr}");
        let results = run_rows(directory.path(), "app.wasm", "{}\n{\"amount\":5}\n");
        let message = |row: usize| results[row]["messages"][0].clone();
        assert_eq!((&message(0)["code"], &message(0)["values"][0]), (&"processing_error".into(), &"there is no amount".into()));
        let told = message(1)["values"].as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect::<Vec<_>>().join(", in ");
        let flat = text.replace('\n', " ");
        for sentence in sentences {
            assert!(told.contains(sentence), "{told}");
            assert!(flat.contains(sentence), "{page}: {sentence}");
        }
    }
}
