//! The processor, the settings and the input that a run was begun with: all of them have to be the
//! same when it goes on.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::args::RunArgs;
use crate::cli::feed::{base_name, form_of, open_file, sum_of};
use crate::cli::signals::Stop;
use crate::intake::FileSum;
use crate::model::{BatchFile, FailureLimit, Grants, hex, show_time};

/// The settings and the input that a run was begun with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    #[serde(flatten)]
    pub settings: RunSettings,
    /// The file that its rows came from; none for a query.
    pub input: Option<BatchFile>,
}

/// The processor and the settings of a run, as far as they decide about its results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunSettings {
    /// The SHA-256 of the processor, in hexadecimal.
    pub processor: String,
    pub op: String,
    pub context: String,
    pub query: Option<String>,
    /// The form of the input; none for a query.
    pub form: Option<String>,
    pub fuel: u64,
    pub timeout_ms: u64,
    pub memory_bytes: u64,
    pub attempts: u32,
    #[serde(default)]
    pub failures_max: Option<FailureLimit>,
    /// The SHA-256 of the grants as JSON, in hexadecimal.
    pub grants: String,
}

/// The input of a run that goes on, as compared with that of its beginning.
pub(super) enum Checked {
    Same,
    /// The program was asked to stop meanwhile.
    Stopped,
}

impl RunSettings {
    pub fn of(args: &RunArgs, processor_digest: &str, grants: &Grants) -> anyhow::Result<RunSettings> {
        let form = match &args.input {
            // An unclear form is an error of its own.
            Some(input) => Some(form_of(&input.display().to_string(), args.format)?.as_str().to_owned()),
            None => None,
        };
        let grants = serde_json::to_vec(grants).context("cannot write down the grants")?;
        Ok(RunSettings {
            processor: processor_digest.to_owned(),
            op: args.op(),
            context: args.context()?.as_str().to_owned(),
            query: args.query.clone(),
            form,
            fuel: args.fuel,
            timeout_ms: u64::try_from(args.timeout().as_millis()).unwrap_or(u64::MAX),
            memory_bytes: args.memory,
            attempts: args.attempts,
            failures_max: args.failures_max,
            grants: hex(&Sha256::digest(grants)),
        })
    }

    /// The differences between a run that was begun and the command that is to go on with it, in words.
    fn differences(&self, now: &RunSettings) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |name: &str, begun: &dyn Display, now: &dyn Display| {
            let (begun, now) = (begun.to_string(), now.to_string());
            if begun != now {
                found.push(format!("{name} was {begun}, and is {now}"));
            }
        };
        compare("the digest of the processor", &self.processor, &now.processor);
        compare("the operation (the name of the processor's file)", &self.op, &now.op);
        compare("--context", &self.context, &now.context);
        compare("--query", &or_none(self.query.as_ref()), &or_none(now.query.as_ref()));
        compare("the format", &or_none(self.form.as_ref()), &or_none(now.form.as_ref()));
        compare("--fuel", &self.fuel, &now.fuel);
        let time = |millis: u64| show_time(Duration::from_millis(millis));
        compare("--timeout", &time(self.timeout_ms), &time(now.timeout_ms));
        compare("--memory", &format!("{} bytes", self.memory_bytes), &format!("{} bytes", now.memory_bytes));
        compare("--attempts", &self.attempts, &now.attempts);
        let limit = |limit: Option<FailureLimit>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        compare("--failures-max", &limit(self.failures_max), &limit(now.failures_max));
        if self.grants != now.grants {
            found.push("other things are granted to the processor".to_owned());
        }
        found
    }
}

fn or_none(text: Option<&String>) -> &str {
    text.map_or("none", String::as_str)
}

impl Begun {
    /// The input in a few words.
    pub fn input_in_words(&self) -> String {
        self.input.as_ref().map_or_else(|| "a query".to_owned(), in_words)
    }

    /// Checks that a command may go on with this run: the settings are the same.
    ///
    /// # Errors
    /// The differences.
    pub fn check_settings(&self, now: &RunSettings, out: &str) -> anyhow::Result<()> {
        let differences = self.settings.differences(now);
        if differences.is_empty() {
            return Ok(());
        }
        let begun = format!("the run in {out} was begun with {}", self.input_in_words());
        bail!(
            "{begun}, and this command differs from the one that began it: {}; a run goes on with the \
             processor and the settings that it began with: give the same command with --resume, or \
             begin a new run in another directory (--out)",
            differences.join("; ")
        )
    }

    /// Checks that the input of a command is the one of this run. Reads all of it.
    ///
    /// # Errors
    /// The difference, or that it cannot be read.
    pub async fn check_input(&self, args: &RunArgs, out: &str, stop: &Stop) -> anyhow::Result<Checked> {
        // A command with a query differs in its settings from one with an input.
        let (Some(begun), Some(input)) = (&self.input, &args.input) else { return Ok(Checked::Same) };
        let is_stdin = input.as_os_str() == "-";
        let name = if is_stdin { "stdin".to_owned() } else { input.display().to_string() };
        let other = |what: String| {
            anyhow::anyhow!(
                "the run in {out} was begun with {}, and {what}: give it the input that it was begun \
                 with, or begin a new run in another directory (--out)",
                in_words(begun)
            )
        };
        if !is_stdin {
            match std::fs::metadata(input) {
                Ok(found) if found.is_file() && found.len() != begun.size_bytes => {
                    return Err(other(format!("{name} has {} bytes now", found.len())));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if base_name(&name) != begun.name {
                        return Err(other(format!("{name} cannot be read: {error}")));
                    }
                    say!("{name} is not there any more: all its rows were read before");
                    return Ok(Checked::Same);
                }
                _ => {}
            }
        }
        let file = open_file(input, args.format)?;
        let reading = tokio::task::spawn_blocking(move || sum_of(file));
        let FileSum { size_bytes, sha256 } = tokio::select! {
            sum = reading => sum.context("the reading thread failed")??,
            () = stop.asked() => return Ok(Checked::Stopped),
        };
        if is_stdin && size_bytes == 0 {
            say!("stdin is empty: all rows of the run were read before");
            return Ok(Checked::Same);
        }
        if (size_bytes, &sha256) != (begun.size_bytes, &begun.sha256) {
            return Err(other(format!("{name} has {size_bytes} bytes and SHA-256 {sha256} now")));
        }
        Ok(Checked::Same)
    }
}

fn in_words(file: &BatchFile) -> String {
    format!("{} ({} bytes, SHA-256 {})", file.name, file.size_bytes, file.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> RunSettings {
        RunSettings {
            processor: "aa".to_owned(),
            op: "p".to_owned(),
            context: "{}".to_owned(),
            query: None,
            form: Some("csv".to_owned()),
            fuel: 1,
            timeout_ms: 5_000,
            memory_bytes: 1,
            attempts: 3,
            failures_max: None,
            grants: String::new(),
        }
    }

    #[test]
    fn each_setting_that_changes_results_is_compared() {
        let text = |text: &str| text.to_owned();
        for (now, said) in [
            (RunSettings { processor: text("bb"), ..settings() }, "the digest of the processor was aa"),
            (RunSettings { op: text("q"), ..settings() }, "was p, and is q"),
            (RunSettings { context: text("[]"), ..settings() }, "--context was {}, and is []"),
            (RunSettings { query: Some(text("1")), ..settings() }, "--query was none, and is 1"),
            (RunSettings { form: Some(text("ndjson")), ..settings() }, "the format was csv, and is ndjson"),
            (RunSettings { fuel: 2, ..settings() }, "--fuel was 1, and is 2"),
            (RunSettings { timeout_ms: 6_000, ..settings() }, "--timeout was 5s, and is 6s"),
            (RunSettings { memory_bytes: 2, ..settings() }, "--memory was 1 bytes, and is 2 bytes"),
            (RunSettings { attempts: 4, ..settings() }, "--attempts was 3, and is 4"),
            (RunSettings { failures_max: "5%".parse().ok(), ..settings() }, "--failures-max was none, and is 5%"),
            (RunSettings { grants: text("x"), ..settings() }, "other things are granted"),
        ] {
            let found = settings().differences(&now);
            assert!(matches!(&found[..], [one] if one.contains(said)), "{found:?}");
        }
        assert_eq!(settings().differences(&settings()), [] as [&str; 0]);
    }
}
