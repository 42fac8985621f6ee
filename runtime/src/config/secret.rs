//! What nobody may see.

use std::fmt;
use std::path::Path;

use serde::{Serialize, Serializer};

const HIDDEN: &str = "***";

/// A text that is shown as `***` wherever it is written by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the one who needs it: not to be written anywhere.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text as a URL that people may see: scheme, user, host and path, without the password.
    pub fn as_shown_url(&self) -> String {
        show_url(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// A URL without its password. Where it is not clear what the password is, more is hidden, and never less.
fn show_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return HIDDEN.to_owned() };
    // The last @: a password may hold one that should have been written as %40, and a / or ? too.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let shown_user = match user.map(|user| user.split_once(':')) {
        None => String::new(),
        Some(None) => format!("{}@", user.unwrap_or_default()),
        Some(Some((name, _))) => format!("{name}:{HIDDEN}@"),
    };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (host, path) = place.find('/').map_or((place, ""), |at| place.split_at(at));
    // `user:password` whose host was forgotten looks like a host and a port.
    let port_is_odd = !host.starts_with('[') && host.split_once(':').is_some_and(|(_, port)| !port.chars().all(|digit| digit.is_ascii_digit()));
    let shown_host = if port_is_odd { HIDDEN } else { host };
    let shown_query = query.map(|query| {
        let parts: Vec<String> = query.split('&').map(show_parameter).collect();
        format!("?{}", parts.join("&"))
    });
    format!("{scheme}://{shown_user}{shown_host}{path}{}", shown_query.unwrap_or_default())
}

fn show_parameter(parameter: &str) -> String {
    let Some((name, _)) = parameter.split_once('=') else { return parameter.to_owned() };
    let lower = name.to_ascii_lowercase();
    let telling = ["pass", "pwd", "secret", "token", "key", "auth"].iter().any(|word| lower.contains(word));
    if telling { format!("{name}={HIDDEN}") } else { parameter.to_owned() }
}

/// A secret from a file, without the white space around it.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub(super) fn read_secret_file(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    if is_readable_by_others(path) {
        tracing::warn!("{} holds a secret and can be read by every user of this machine: chmod o-r {0}", path.display());
    }
    Ok(Secret::new(text))
}

#[cfg(unix)]
fn is_readable_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_written_by_accident() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_url_keeps_all_but_its_password() {
        for (url, shown) in [
            ("postgres://rowmill:hunter2@db:5432/jobs", "postgres://rowmill:***@db:5432/jobs"),
            ("postgres://rowmill@db/jobs", "postgres://rowmill@db/jobs"),
            ("postgres://db/jobs?user=a&password=hunter2&sslmode=require", "postgres://db/jobs?user=a&password=***&sslmode=require"),
            ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
            ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
            ("redis://u:hun/ter@2?x@cache", "redis://u:***@cache"),
            ("postgres://u:hunter2", "postgres://***"),
            ("postgres://u:hunter2/db", "postgres://***/db"),
            ("hunter2", "***"),
        ] {
            assert_eq!(Secret::new(url).as_shown_url(), shown, "{url}");
        }
    }
}
