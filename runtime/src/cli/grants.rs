//! `rowmill apps show`, `grant` and `revoke`: what the processors of an app may reach beyond their rows.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::config::ConfigArgs;
use super::print_data;
use super::table::Table;
use super::terms::parse_name;
use crate::config::{parse_size, parse_timeout, show_size};
use crate::model::{App, DirectoryGrant, Grants, HttpRule, Net, ObjectsGrant, SqlGrant, show_time};
use crate::store::Store;

/// A command reads settings, changes some of them and stores all: it tries this many times when other commands change the same settings in between.
pub(super) const TRIES_MAX: usize = 10;

/// Show what is granted to an app.
#[derive(Debug, Args)]
pub struct AppsShow {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
}

/// Grant something to an app, beside what it was granted before. Its processors may reach it from the next lease on.
#[derive(Debug, Args)]
pub struct AppsGrant {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    #[command(flatten)]
    pub options: GrantOptions,
}

/// What is granted.
#[derive(Debug, Args)]
pub struct GrantOptions {
    /// A value that processors read by its key (wasi:config).
    #[arg(long = "value", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub values: Vec<(String, String)>,
    /// A secret that processors read by a key (wasi:config): the name of a file in the workers' grants.secrets_directory. It is hidden in all that they say.
    #[arg(long = "secret", value_name = "KEY=NAME", value_parser = parse_pair)]
    pub secrets: Vec<(String, String)>,
    /// Requests to a host (wasi:http), as in `https://api.example.com`, or `GET,POST http://*.example.com:8080`; GET and HEAD unless methods are said.
    #[arg(long = "http", value_name = "RULE")]
    pub http: Vec<HttpRule>,
    /// Addresses that the hosts may have although they are not public, as in 10.1.0.0/16.
    #[arg(long = "net", value_name = "NET")]
    pub nets: Vec<Net>,
    /// HTTP requests of one row.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
    pub http_requests: Option<u32>,
    /// HTTP requests of one instance at the same time.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=64))]
    pub http_at_once: Option<u32>,
    /// Bytes of the body of one HTTP request.
    #[arg(long, value_name = "SIZE", value_parser = parse_http_size)]
    pub http_request_bytes: Option<u64>,
    /// Bytes of the body of one HTTP response.
    #[arg(long, value_name = "SIZE", value_parser = parse_http_size)]
    pub http_response_bytes: Option<u64>,
    /// Time of one HTTP request, from its begin to the end of its response.
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub http_timeout: Option<Duration>,
    /// A directory of the workers' machines that processors may read (wasi:filesystem), as in /data=/srv/bank.
    #[arg(long = "dir", value_name = "GUEST=HOST", value_parser = parse_pair)]
    pub directories: Vec<(String, String)>,
    /// The same, and they may change what is in it.
    #[arg(long = "dir-writable", value_name = "GUEST=HOST", value_parser = parse_pair)]
    pub writable_directories: Vec<(String, String)>,
    /// Statements that read from a database (rowmill:sql): the name of a file in the workers' grants.databases_directory that holds its URL.
    #[arg(long = "sql", value_name = "NAME")]
    pub databases: Vec<String>,
    /// Rows of one statement, for the databases that --sql names.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    pub sql_rows: Option<u32>,
    /// Bytes of the rows of one statement.
    #[arg(long, value_name = "SIZE", value_parser = parse_sql_size)]
    pub sql_bytes: Option<u64>,
    /// Time of one statement.
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub sql_timeout: Option<Duration>,
    /// A store of values by keys that is the app's alone (wasi:keyvalue): in Redis (redis.url), in the worker's process without.
    #[arg(long)]
    pub key_value: bool,
    /// Bytes of one value in it.
    #[arg(long, value_name = "SIZE", value_parser = parse_value_size)]
    pub value_bytes: Option<u32>,
    /// Bytes of all keys and values in it, each entry counting 64 more.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub total_bytes: Option<u64>,
    /// Objects that are the app's alone, by names (rowmill:objects): in the object store that output files are kept in.
    #[arg(long)]
    pub objects: bool,
    /// Bytes of one object.
    #[arg(long, value_name = "SIZE", value_parser = parse_object_size)]
    pub object_bytes: Option<u64>,
    /// Bytes of all objects.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub objects_bytes: Option<u64>,
    /// How many objects there may be.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
    pub objects_count: Option<u32>,
}

/// Take back what was granted to an app. Rows that run keep it until their lease ends; abort their batches where that is too late.
#[derive(Debug, Args)]
pub struct AppsRevoke {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[arg(value_parser = parse_name)]
    pub app: String,
    /// The value of a key.
    #[arg(long = "value", value_name = "KEY")]
    pub values: Vec<String>,
    /// The secret of a key.
    #[arg(long = "secret", value_name = "KEY")]
    pub secrets: Vec<String>,
    /// Requests to a host, as it was granted. With the last one all of HTTP is taken back.
    #[arg(long = "http", value_name = "RULE")]
    pub http: Vec<HttpRule>,
    /// Addresses, as they were granted.
    #[arg(long = "net", value_name = "NET")]
    pub nets: Vec<Net>,
    /// A directory, by the path that processors find it under.
    #[arg(long = "dir", value_name = "GUEST")]
    pub directories: Vec<String>,
    /// Statements to a database.
    #[arg(long = "sql", value_name = "NAME")]
    pub databases: Vec<String>,
    /// The store of values by keys. What is in it stays until it is granted again.
    #[arg(long)]
    pub key_value: bool,
    /// The objects. What there is stays until they are granted again.
    #[arg(long)]
    pub objects: bool,
    /// Everything.
    #[arg(long)]
    pub all: bool,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it should look like KEY=…".to_owned()),
    }
}

fn parse_http_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes <= 1 << 30 { Ok(bytes) } else { Err("it should be 1GiB at most".to_owned()) }
}

fn parse_value_size(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    u32::try_from(bytes).ok().filter(|bytes| (1..=1 << 20).contains(bytes)).ok_or_else(|| "it should be 1MiB at most".to_owned())
}

fn parse_sql_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if (1..=SqlGrant::BYTES_MAX).contains(&bytes) { Ok(bytes) } else { Err("it should be 32MiB at most".to_owned()) }
}

fn parse_object_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if (1..=ObjectsGrant::OBJECT_BYTES_MAX).contains(&bytes) { Ok(bytes) } else { Err("it should be 8MiB at most".to_owned()) }
}

impl GrantOptions {
    pub(super) fn add_to(&self, grants: &mut Grants) -> anyhow::Result<()> {
        // A key has a value or a secret.
        for (key, value) in &self.values {
            grants.secrets.remove(key);
            grants.values.insert(key.clone(), value.clone());
        }
        for (key, name) in &self.secrets {
            grants.values.remove(key);
            grants.secrets.insert(key.clone(), name.clone());
        }
        if !self.http.is_empty() {
            grants.http.get_or_insert_default().allow.extend(self.http.iter().cloned());
        }
        let of_http = !self.nets.is_empty()
            || self.http_requests.is_some()
            || self.http_at_once.is_some()
            || self.http_request_bytes.is_some()
            || self.http_response_bytes.is_some()
            || self.http_timeout.is_some();
        match &mut grants.http {
            Some(http) => {
                http.nets.extend(&self.nets);
                http.requests_max = self.http_requests.unwrap_or(http.requests_max);
                http.at_once_max = self.http_at_once.unwrap_or(http.at_once_max);
                http.request_bytes_max = self.http_request_bytes.unwrap_or(http.request_bytes_max);
                http.response_bytes_max = self.http_response_bytes.unwrap_or(http.response_bytes_max);
                http.timeout = self.http_timeout.unwrap_or(http.timeout);
            }
            None if of_http => bail!("HTTP is not granted: say which hosts with --http"),
            None => {}
        }
        for (guest, path) in &self.directories {
            grants.directories.insert(guest.clone(), DirectoryGrant { path: path.clone(), writable: false });
        }
        for (guest, path) in &self.writable_directories {
            grants.directories.insert(guest.clone(), DirectoryGrant { path: path.clone(), writable: true });
        }
        if self.databases.is_empty() && (self.sql_rows.is_some() || self.sql_bytes.is_some() || self.sql_timeout.is_some()) {
            bail!("say with --sql of which databases these are the limits");
        }
        for name in &self.databases {
            let sql = grants.sql.entry(name.clone()).or_default();
            sql.rows_max = self.sql_rows.unwrap_or(sql.rows_max);
            sql.bytes_max = self.sql_bytes.unwrap_or(sql.bytes_max);
            sql.timeout = self.sql_timeout.unwrap_or(sql.timeout);
        }
        if self.key_value {
            grants.key_value.get_or_insert_default();
        }
        match &mut grants.key_value {
            Some(key_value) => {
                key_value.value_bytes_max = self.value_bytes.unwrap_or(key_value.value_bytes_max);
                key_value.total_bytes_max = self.total_bytes.unwrap_or(key_value.total_bytes_max);
            }
            None if self.value_bytes.is_some() || self.total_bytes.is_some() => bail!("no store of values is granted: grant it with --key-value"),
            None => {}
        }
        if self.objects {
            grants.objects.get_or_insert_default();
        }
        match &mut grants.objects {
            Some(objects) => {
                objects.object_bytes_max = self.object_bytes.unwrap_or(objects.object_bytes_max);
                objects.total_bytes_max = self.objects_bytes.unwrap_or(objects.total_bytes_max);
                objects.count_max = self.objects_count.unwrap_or(objects.count_max);
            }
            None if self.object_bytes.is_some() || self.objects_bytes.is_some() || self.objects_count.is_some() => {
                bail!("no objects are granted: grant them with --objects")
            }
            None => {}
        }
        Ok(())
    }
}

impl AppsRevoke {
    pub(super) fn take_from(&self, grants: &mut Grants) -> anyhow::Result<()> {
        if self.all {
            *grants = Grants::default();
            return Ok(());
        }
        for key in &self.values {
            if grants.values.remove(key).is_none() {
                bail!("it has no value with the key {key:?}");
            }
        }
        for key in &self.secrets {
            if grants.secrets.remove(key).is_none() {
                bail!("it has no secret with the key {key:?}");
            }
        }
        for rule in &self.http {
            if !grants.http.as_mut().is_some_and(|http| http.allow.remove(rule)) {
                bail!("it was not granted {rule}; rowmill apps show tells what it was granted");
            }
        }
        for net in &self.nets {
            if !grants.http.as_mut().is_some_and(|http| http.nets.remove(net)) {
                bail!("it was not granted the addresses {net}");
            }
        }
        if grants.http.as_ref().is_some_and(|http| http.allow.is_empty()) {
            grants.http = None;
        }
        for guest in &self.directories {
            if grants.directories.remove(guest).is_none() {
                bail!("it was granted no directory {guest}");
            }
        }
        for name in &self.databases {
            if grants.sql.remove(name).is_none() {
                bail!("it was granted no database {name}");
            }
        }
        if self.key_value && grants.key_value.take().is_none() {
            bail!("it was granted no store of values");
        }
        if self.objects && grants.objects.take().is_none() {
            bail!("it was granted no objects");
        }
        Ok(())
    }
}

/// Changes the grants of an app as they are at that moment, and shows them.
pub(super) async fn change(store: &dyn Store, app: &str, json: bool, change: impl Fn(&mut Grants) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for _ in 0..TRIES_MAX {
        let from = store.read_app(app).await?.map(|app| app.grants).unwrap_or_default();
        let mut to = from.clone();
        change(&mut to)?;
        if store.set_grants(app, &from, &to).await? {
            return show(store, app, json).await;
        }
    }
    bail!("the grants of app {app:?} were changed by others all the time: try again")
}

/// Prints what is granted to an app.
pub(super) async fn show(store: &dyn Store, name: &str, json: bool) -> anyhow::Result<()> {
    let app = store.read_app(name).await?.unwrap_or_else(|| App::named(name));
    if json {
        return print_data(&serde_json::to_string(&serde_json::json!({ "name": app.name, "grants": app.grants }))?);
    }
    if app.grants.is_empty() {
        say!("nothing is granted to app {name}");
        return Ok(());
    }
    let mut table = Table::new(["GRANT", "WHAT", "LIMITS"]);
    for (key, value) in &app.grants.values {
        table.row(["value".to_owned(), format!("{key} = {value}"), String::new()]);
    }
    for (key, name) in &app.grants.secrets {
        table.row(["secret".to_owned(), format!("{key}: the workers' secret {name}"), String::new()]);
    }
    if let Some(http) = &app.grants.http {
        let limits = format!(
            "{} requests of a row, {} at once, {} sent, {} received, {} each",
            http.requests_max,
            http.at_once_max,
            show_size(http.request_bytes_max),
            show_size(http.response_bytes_max),
            show_time(http.timeout)
        );
        for rule in &http.allow {
            table.row(["http".to_owned(), rule.to_string(), limits.clone()]);
        }
        for net in &http.nets {
            table.row(["http".to_owned(), format!("the addresses {net}"), String::new()]);
        }
    }
    for (guest, directory) in &app.grants.directories {
        let how = if directory.writable { "read and write" } else { "read only" };
        table.row(["dir".to_owned(), format!("{guest} = {}", directory.path), how.to_owned()]);
    }
    for (name, sql) in &app.grants.sql {
        let limits = format!("{} rows, {}, {} a statement", sql.rows_max, show_size(sql.bytes_max), show_time(sql.timeout));
        table.row(["sql".to_owned(), format!("the workers' database {name}"), limits]);
    }
    if let Some(key_value) = &app.grants.key_value {
        let limits = format!("{} a value, {} in all", show_size(key_value.value_bytes_max.into()), show_size(key_value.total_bytes_max));
        table.row(["key-value".to_owned(), "values by keys".to_owned(), limits]);
    }
    if let Some(objects) = &app.grants.objects {
        let limits = format!(
            "{} an object, {} in all, {} of them",
            show_size(objects.object_bytes_max),
            show_size(objects.total_bytes_max),
            objects.count_max
        );
        table.row(["objects".to_owned(), "objects by names".to_owned(), limits]);
    }
    print_data(&table.into_text())
}

/// The kinds of what is granted, for a list.
pub(super) fn kinds(grants: &Grants) -> String {
    let kinds = [
        ("value", !grants.values.is_empty()),
        ("secret", !grants.secrets.is_empty()),
        ("http", grants.http.is_some()),
        ("dir", !grants.directories.is_empty()),
        ("sql", !grants.sql.is_empty()),
        ("key-value", grants.key_value.is_some()),
        ("objects", grants.objects.is_some()),
    ];
    let kinds: Vec<&str> = kinds.into_iter().filter(|(_, has)| *has).map(|(kind, _)| kind).collect();
    if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
}
