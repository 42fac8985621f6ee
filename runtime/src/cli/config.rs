//! `rowmill config`, and the options of every command that reads the configuration.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::{EXIT_SUCCESS, print_data};
use crate::config::{Config, ConfigError, Sources};

/// Where the configuration comes from: a command that needs one flattens these.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file. By default the one that ROWMILL_CONFIG names, else rowmill.toml when it is there.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one setting, before the environment and the file; may be repeated.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// These options together with those that stand behind a subcommand. Of a setting that both
    /// set, the one that stands behind counts.
    ///
    /// # Errors
    /// Both name a configuration file.
    pub fn with(&self, behind: Option<&ConfigArgs>) -> anyhow::Result<ConfigArgs> {
        let Some(behind) = behind else { return Ok(self.clone()) };
        if self.config.is_some() && behind.config.is_some() {
            bail!("--config is given twice: there is one configuration file");
        }
        let config = behind.config.as_ref().or(self.config.as_ref()).cloned();
        Ok(ConfigArgs { config, set: [self.set.as_slice(), &behind.set].concat() })
    }

    /// The configuration as it is in force, with `shorthands` (`section.key=value`) of the command's own flags before everything else.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(&self, shorthands: Vec<String>) -> Result<Config, ConfigError> {
        let set = self.set.iter().cloned().chain(shorthands).collect();
        Config::load(&Sources::of_process(self.config.clone(), set))
    }
}

/// Show the configuration that is in force, and where each value comes from.
///
/// Settings come from the defaults, then a TOML file, then the environment (ROWMILL_SECTION_KEY), then --set, each before the one before it. What is printed
/// can be used as a file. Secrets are shown as ***.
#[derive(Debug, Args)]
pub struct ConfigCommand {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON: for each setting its value, and where it comes from.
    #[arg(long)]
    pub json: bool,
}

/// Prints what is in force.
///
/// # Errors
/// What is wrong with the configuration.
pub fn run(args: &ConfigCommand) -> anyhow::Result<ExitCode> {
    let config = args.config.load(Vec::new())?;
    let text = if args.json { serde_json::to_string(&as_json(&config))? } else { as_toml(&config) };
    print_data(text.trim_end())?;
    Ok(ExitCode::from(EXIT_SUCCESS))
}

fn as_json(config: &Config) -> Json {
    let mut sections = Map::new();
    for entry in config.in_force() {
        let section = sections.entry(entry.setting.section).or_insert_with(|| json!({}));
        section[entry.setting.key] = json!({ "value": entry.shown, "from": entry.place });
    }
    Json::Object(sections)
}

fn as_toml(config: &Config) -> String {
    let mut text = String::new();
    let mut section = "";
    for entry in config.in_force() {
        if entry.setting.section != section {
            section = entry.setting.section;
            let _ = writeln!(text, "{}[{section}]", if text.is_empty() { "" } else { "\n" });
        }
        let key = entry.setting.key;
        let _ = match &entry.shown {
            // JSON's texts, numbers and switches are TOML's.
            Some(value) => writeln!(text, "{key} = {value}  # {}", entry.place),
            None => writeln!(text, "# {key} =  # {}", entry.place),
        };
    }
    text
}
