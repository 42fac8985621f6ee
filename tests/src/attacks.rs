//! The attacks that the sandbox must survive: the one list of them. `make attacks` and the suite go by it, and docs/security.md repeats it under a test.

/// One of them. Its tests have its id at the beginning of their name: `mem_2_…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attack {
    /// Its family and number: `MEM-2`.
    pub id: &'static str,
    pub attack: &'static str,
    pub expected: &'static str,
}

impl Attack {
    const fn new(id: &'static str, attack: &'static str, expected: &'static str) -> Attack {
        Attack { id, attack, expected }
    }

    /// How the names of its tests begin.
    pub fn prefix(&self) -> String {
        format!("{}_", self.id.to_lowercase().replace('-', "_"))
    }

    /// Whether this is the path of one of its tests: `attacks::mem::mem_2_lists_that_grow`.
    pub fn is_tested_by(&self, path: &str) -> bool {
        path.rsplit("::").next().is_some_and(|name| name.starts_with(&self.prefix()))
    }
}

pub const ATTACKS: &[Attack] = &[
    Attack::new(
        "CPU-1",
        "an endless loop in process-row, the start function, init, begin, realloc, post-return, mark-done and close",
        "stopped by fuel or by the deadline, with the number",
    ),
    Attack::new("CPU-2", "a thousand apps in loops", "fair shares; another app's rows, and what is asked of the library, come through"),
    Attack::new("CPU-3", "256 MiB of `memory.fill` in a loop", "the thread is given up between fills; stopped at the deadline"),
    Attack::new("CPU-4", "fuel at exactly N−1 and N", "the same end in every run"),
    Attack::new("CPU-5", "a guest that sleeps for ever", "the deadline drops it"),
    Attack::new(
        "MEM-1",
        "one memory past its limit; a second memory; a huge memory, table or number of globals from the start",
        "refused, with needed and limit",
    ),
    Attack::new(
        "MEM-2",
        "lists and texts that overlap and grow when they are read; ten million empty texts; lists in lists",
        "the row fails; memory of the host is bounded",
    ),
    Attack::new("MEM-3", "a million handles; 1 GiB of random bytes", "refused at the cap"),
    Attack::new("MEM-4", "all apps together above the memory of the worker", "waits by app; the process lives"),
    Attack::new("STK-1", "endless recursion; huge frames; recursion through the host", "a trap"),
    Attack::new("LOG-1", "a line of 10 MiB; a million lines; 1 GiB without a line break", "cut with a mark, counted; what is kept is bounded"),
    Attack::new(
        "LOG-2",
        "terminal escapes, NUL, invalid UTF-8 and `</script>` in logs, messages, names and file names",
        "harmless in the terminal (there is no dashboard yet)",
    ),
    Attack::new(
        "OUT-1",
        "output that is not JSON; 100 MiB of output; a million messages; a huge piece of a file",
        "that row fails with the reason, the batch goes on",
    ),
    Attack::new(
        "OUT-2",
        "names of files: `../x`, absolute, 10 KiB long, confusable, another app's object",
        "refused; nothing leaves the batch's own prefix",
    ),
    Attack::new("NET-1", "HTTP, TCP, UDP and names without a grant", "refused, with the grant that would allow it"),
    Attack::new(
        "NET-2",
        "a granted name that leads to loopback, link-local, metadata or private addresses, in odd spellings, by a second look-up or a redirect",
        "refused once the address is known",
    ),
    Attack::new("NET-3", "slow or endless answers; ten thousand requests at once; 100,000 headers", "capped; no panic"),
    Attack::new(
        "SEC-1",
        "reading the environment, files, another app's values, secrets, keys and batches; guessing ids",
        "refused, and the same as what does not exist",
    ),
    Attack::new("SEC-2", "a secret in log, output, message, file, panic or progress", "hidden"),
    Attack::new("SEC-3", "state that one lease leaves and another reads", "absent; never across apps or batches"),
    Attack::new(
        "COMP-1",
        "compile bombs: 60,000 branches or 50,000 locals in a function, deep nesting, 20,000 functions, 64 MiB of no-ops",
        "refused, or ended in the compiler's process; others go on",
    ),
    Attack::new(
        "COMP-2",
        "a core module without WIT, another world, a missing export, an unknown import, a cut file, a web page",
        "one sentence: expected, found",
    ),
    Attack::new(
        "COMP-3",
        "compiled code as an upload; a changed file in the cache; code of another key or version",
        "refused, or compiled again; never run",
    ),
    Attack::new("COMP-4", "the same bytes uploaded a hundred times at once", "compiled once"),
    Attack::new("LIFE-1", "a trap in init; init returns an error; close hangs", "that app's rows fail with the reason; others do not notice"),
    Attack::new(
        "LIFE-2",
        "a trap in the middle of a batch; a row that always traps; a row that kills its worker",
        "that row fails; its neighbours have one outcome each",
    ),
    Attack::new("LIFE-3", "abort and deadline in a loop, in a host call, asleep and between rows", "stopped within a second"),
    Attack::new("LIFE-4", "a new version is activated, rolled back or removed during a batch", "the batch ends on its own version"),
    Attack::new(
        "FUZZ-1",
        "arbitrary bytes as uploads, as the arguments of every host function, as outcomes, and as files of rows",
        "no panic; refused with a sentence, or read as it was written",
    ),
];

/// What came of the tests of one attack: no test of a run that is not its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Came {
    pub passed: usize,
    /// Paths of those that did not.
    pub failed: Vec<String>,
}

impl Came {
    /// The tests of an attack among all that ran, each with whether it passed.
    pub fn of(attack: &Attack, ran: &[(String, bool)]) -> Came {
        let mut came = Came::default();
        for (path, passed) in ran.iter().filter(|(path, _)| attack.is_tested_by(path)) {
            if *passed {
                came.passed += 1;
            } else {
                came.failed.push(path.clone());
            }
        }
        came
    }

    pub fn is_survived(&self) -> bool {
        self.passed > 0 && self.failed.is_empty()
    }

    /// The last column of the table.
    pub fn told(&self) -> String {
        match (self.passed, &self.failed[..]) {
            (0, []) => "not run".to_owned(),
            (1, []) => "survived (1 test)".to_owned(),
            (passed, []) => format!("survived ({passed} tests)"),
            (_, failed) => format!("FAILED: {}", failed.join(", ")),
        }
    }
}

/// The table of all attacks, as docs/security.md has it.
pub fn table(ran: &[(String, bool)]) -> String {
    let rows = ATTACKS.iter().map(|attack| {
        let Attack { id, attack: what, expected } = attack;
        format!("| {id} | {what} | {expected} | {} |\n", Came::of(attack, ran).told())
    });
    format!("| id | attack | expected | result |\n|---|---|---|---|\n{}", rows.collect::<String>())
}

/// The tests that nextest has run, by the report that it leaves (JUnit's format), each with whether it passed.
pub fn read_report(report: &str) -> Vec<(String, bool)> {
    let cases = report.split("<testcase ").skip(1);
    cases
        .filter_map(|case| {
            let name = case.split_once("name=\"")?.1.split_once('"')?.0;
            let case = case.split("</testcase>").next().unwrap_or(case);
            Some((name.to_owned(), !case.contains("<failure") && !case.contains("<error")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_nextest_tells_what_passed() {
        let report = r#"<testsuites><testsuite name="rowmill-tests::suite">
            <testcase name="attacks::mem::mem_2_lists" classname="rowmill-tests::suite" time="0.1">
            </testcase>
            <testcase name="attacks::mem::mem_2_texts" classname="rowmill-tests::suite" time="0.1">
              <failure type="test failure">thread panicked</failure>
            </testcase>
            <testcase name="attacks::mem::mem_3_handles" classname="rowmill-tests::suite" time="0.1"></testcase>
        </testsuite></testsuites>"#;
        let ran = read_report(report);
        assert_eq!(ran.iter().map(|(_, passed)| *passed).collect::<Vec<_>>(), [true, false, true]);
        let came = |id: &str| Came::of(ATTACKS.iter().find(|attack| attack.id == id).unwrap(), &ran);
        assert_eq!(came("MEM-2").told(), "FAILED: attacks::mem::mem_2_texts");
        assert_eq!((came("MEM-3").told(), came("MEM-1").told()), ("survived (1 test)".to_owned(), "not run".to_owned()));
        assert!(came("MEM-3").is_survived() && !came("MEM-1").is_survived() && !came("MEM-2").is_survived());
        assert_eq!(table(&ran).lines().count(), ATTACKS.len() + 2);
    }
}
