use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Net;
use super::limits::millis;

/// Bytes of all grants of an app as JSON, at most: they come along with each batch that a worker begins.
pub const GRANTS_BYTES_MAX: usize = 64 << 10;

/// What the processors of an app may reach beyond their rows: nothing, unless an operator granted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// What `wasi:config` tells, by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// Keys of `wasi:config` whose values are secrets, and the name of each secret. Its value never stands here: each worker has it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Outgoing HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpGrant>,
    /// Directories, by the absolute path under which guests find them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub directories: BTreeMap<String, DirectoryGrant>,
    /// A key-value store that is the app's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_value: Option<KeyValueGrant>,
}

/// Something that a processor may import, if its app was granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    Config,
    Http,
    KeyValue,
}

impl Capability {
    /// How `rowmill apps grant APP` grants it.
    pub fn flags(self) -> &'static str {
        match self {
            Capability::Config => "--value KEY=VALUE or --secret KEY=NAME",
            Capability::Http => "--http https://HOST",
            Capability::KeyValue => "--key-value",
        }
    }
}

impl Grants {
    /// Whether there is anything of this kind.
    pub fn allow(&self, capability: Capability) -> bool {
        match capability {
            Capability::Config => !self.values.is_empty() || !self.secrets.is_empty(),
            Capability::Http => self.http.is_some(),
            Capability::KeyValue => self.key_value.is_some(),
        }
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        *self == Grants::default()
    }

    /// What cannot be, as a sentence.
    ///
    /// # Errors
    /// The sentence.
    pub fn check(&self) -> Result<(), String> {
        for key in self.values.keys().chain(self.secrets.keys()) {
            check_word("the key of a value or secret", key)?;
        }
        if let Some(key) = self.values.keys().find(|key| self.secrets.contains_key(*key)) {
            return Err(format!("the key {key:?} has a value and a secret: it has one of them"));
        }
        for name in self.secrets.values() {
            check_word("the name of a secret", name)?;
        }
        for (guest, directory) in &self.directories {
            check_path("the path of a directory in the guest", guest)?;
            check_path("the path of a directory on the workers", &directory.path)?;
        }
        if let Some(http) = &self.http {
            if http.allow.is_empty() {
                return Err("HTTP is granted, but to no host".to_owned());
            }
            if http.at_once_max > HttpGrant::AT_ONCE_MAX {
                return Err(format!("an instance may have {} HTTP requests at once, and no more", HttpGrant::AT_ONCE_MAX));
            }
            if http.requests_max == 0 || http.at_once_max == 0 || http.timeout.is_zero() {
                return Err("HTTP is granted, but no request, or no time for one: these limits are 1 or more".to_owned());
            }
        }
        if self.key_value.as_ref().is_some_and(|grant| grant.value_bytes_max > KeyValueGrant::VALUE_BYTES_MAX) {
            return Err(format!("a value by its key may have {} bytes, and no more", KeyValueGrant::VALUE_BYTES_MAX));
        }
        let bytes = self.to_json().len();
        if bytes > GRANTS_BYTES_MAX {
            return Err(format!("the grants have {bytes} bytes as JSON, and may have {GRANTS_BYTES_MAX} at most"));
        }
        Ok(())
    }

    /// The one form in which they are stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("it holds texts and numbers only")
    }
}

/// A directory of the workers' machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGrant {
    /// An absolute path.
    pub path: String,
    /// Whether guests may change what is in it.
    #[serde(default)]
    pub writable: bool,
}

fn check_path(what: &str, path: &str) -> Result<(), String> {
    let steps_down = path.split('/').skip(1).all(|step| !step.is_empty() && step != "." && step != "..");
    if !path.starts_with('/') || !steps_down || path.len() > 1_000 || path.contains('\0') {
        let shown: String = path.chars().take(200).collect();
        return Err(format!("{shown:?} cannot be {what}: an absolute path below /, without . and .., of 1000 bytes at most"));
    }
    Ok(())
}

/// Words are names of files, too.
fn check_word(what: &str, word: &str) -> Result<(), String> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    if word.is_empty() || word.len() > 128 || word.starts_with('.') || !word.chars().all(allowed) {
        let shown: String = word.chars().take(128).collect();
        return Err(format!("{shown:?} cannot be {what}: 1 to 128 ASCII letters, digits, '.', '-' and '_', not beginning with '.'"));
    }
    Ok(())
}

/// Outgoing HTTP: where to, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpGrant {
    /// What one of these allows is allowed.
    pub allow: BTreeSet<HttpRule>,
    /// Addresses that are allowed although they are not public: those of private nets, loopback, link-local and so on are refused else.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub nets: BTreeSet<Net>,
    /// Requests of one row.
    pub requests_max: u32,
    /// Requests of one instance whose response is not read to its end.
    pub at_once_max: u32,
    /// Bytes of the body of one request.
    pub request_bytes_max: u64,
    /// Bytes of the body of one response.
    pub response_bytes_max: u64,
    /// Time of one request, from its begin to the end of its response.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
}

impl HttpGrant {
    /// More requests at once would be too much memory of one instance.
    pub const AT_ONCE_MAX: u32 = 64;
}

impl Default for HttpGrant {
    fn default() -> HttpGrant {
        HttpGrant {
            allow: BTreeSet::new(),
            nets: BTreeSet::new(),
            requests_max: 100,
            at_once_max: 8,
            request_bytes_max: 1 << 20,
            response_bytes_max: 8 << 20,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Requests to a host, as in `GET,POST https://*.example.com:8443`. Without methods GET and HEAD; without a port the scheme's own. `*.` at the beginning stands for one
/// or more parts of a name. A host that is an address allows that address, public or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpRule {
    /// TLS, or without.
    pub secure: bool,
    /// In lower case; an address in canonical form without brackets.
    pub host: String,
    pub port: u16,
    /// In capitals.
    pub methods: BTreeSet<String>,
}

impl HttpRule {
    /// Whether it allows a request; the host as in [`HttpRule::host`].
    pub fn allows(&self, secure: bool, host: &str, port: u16, method: &str) -> bool {
        self.secure == secure && self.port == port && self.methods.contains(method) && self.matches_host(host)
    }

    fn matches_host(&self, host: &str) -> bool {
        match self.host.strip_prefix('*') {
            // With the dot: the name itself has no part before it.
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => self.host == host,
        }
    }
}

/// A text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no rule for HTTP: {reason}; it should look like https://api.example.com or GET,POST http://*.example.com:8080")]
pub struct NoHttpRule {
    text: String,
    reason: &'static str,
}

impl FromStr for HttpRule {
    type Err = NoHttpRule;

    fn from_str(text: &str) -> Result<HttpRule, NoHttpRule> {
        let refuse = |reason| NoHttpRule { text: text.to_owned(), reason };
        let (methods, place) = match text.trim().rsplit_once(' ') {
            Some((methods, place)) => (methods.trim(), place),
            None => ("GET,HEAD", text.trim()),
        };
        let methods: BTreeSet<String> = methods.split(',').map(|method| method.trim().to_ascii_uppercase()).collect();
        if methods.iter().any(|method| method.is_empty() || method.len() > 32 || !method.chars().all(|letter| letter.is_ascii_uppercase())) {
            return Err(refuse("methods are letters with commas between them"));
        }
        let (secure, authority) = match (place.strip_prefix("https://"), place.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(refuse("it begins with http:// or https://")),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = split_port(authority).ok_or_else(|| refuse("behind the host there is nothing but a port"))?;
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| refuse("a port is 1 to 65535"))?,
            None if secure => 443,
            None => 80,
        };
        let host = canonical_host(host);
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let is_part = |part: &str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
        let is_name = name.len() <= 253 && name.split('.').all(is_part);
        // A resolver takes numbers for addresses, in odd spellings, too.
        let is_number = name.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_digit()));
        let is_address = host.parse::<std::net::IpAddr>().is_ok();
        if !is_address && (!is_name || is_number) {
            return Err(refuse("the host is a name of ASCII letters, digits, '-' and '.' (other names in their xn-- form), or an address"));
        }
        Ok(HttpRule { secure, host, port, methods })
    }
}

/// The host and the port of an authority; addresses of IPv6 stand in brackets, which are left out.
pub fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    match rest {
        "" => Some((host, None)),
        rest => rest.strip_prefix(':').map(|port| (host, Some(port))),
    }
}

/// One spelling of a host: lower case, no dot at the end, addresses in canonical form.
pub fn canonical_host(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, port) = if self.secure { ("https", 443) } else { ("http", 80) };
        let methods: Vec<&str> = self.methods.iter().map(String::as_str).collect();
        if methods != ["GET", "HEAD"] {
            write!(f, "{} ", methods.join(","))?;
        }
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]", self.host)?;
        } else {
            write!(f, "{scheme}://{}", self.host)?;
        }
        if self.port == port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Serialize for HttpRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HttpRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HttpRule, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How much an app may keep by keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyValueGrant {
    /// Bytes of one value.
    pub value_bytes_max: u32,
    /// Bytes of all keys and values together.
    pub total_bytes_max: u64,
}

impl KeyValueGrant {
    /// Many values go in one call.
    pub const VALUE_BYTES_MAX: u32 = 1 << 20;
}

impl Default for KeyValueGrant {
    fn default() -> KeyValueGrant {
        KeyValueGrant { value_bytes_max: 64 << 10, total_bytes_max: 16 << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(rule: &str, secure: bool, host: &str, port: u16, method: &str) -> bool {
        rule.parse::<HttpRule>().unwrap().allows(secure, &canonical_host(host), port, method)
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_else() {
        let rule = "https://api.example.com";
        assert!(allows(rule, true, "API.example.com.", 443, "GET"));
        assert!(!allows(rule, true, "api.example.com", 443, "POST") && !allows(rule, true, "api.example.com", 8443, "GET"));
        assert!(!allows(rule, false, "api.example.com", 443, "GET") && !allows(rule, true, "api.example.com.evil.org", 443, "GET"));
        let any = "GET,POST http://*.example.com:8080";
        assert!(allows(any, false, "a.b.example.com", 8080, "POST"));
        assert!(!allows(any, false, "example.com", 8080, "POST") && !allows(any, false, "evilexample.com", 8080, "POST"));
        assert!(allows("http://[::1]", false, "::1", 80, "GET") && allows("http://127.0.0.1", false, "::ffff:127.0.0.1", 80, "GET"));
    }

    #[test]
    fn a_rule_has_one_form() {
        for (text, form) in [
            ("https://API.example.com:443/", "https://api.example.com"),
            ("head,GET http://a.example", "http://a.example"),
            ("post,get  http://*.example.com:8080", "GET,POST http://*.example.com:8080"),
            ("http://[::ffff:7f00:1]:81", "http://127.0.0.1:81"),
            ("https://[FD00::1]", "https://[fd00::1]"),
        ] {
            assert_eq!(text.parse::<HttpRule>().unwrap().to_string(), form);
            assert_eq!(form.parse::<HttpRule>().unwrap().to_string(), form);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "example.com",
            "ftp://example.com",
            "https://",
            "https://*",
            "https://*.",
            "https://a..b",
            "https://a/b",
            "https://u@a.example",
            "https://a:0",
            "https://a:99999",
            "https://a:b",
            "https://a.*.example",
            "https://bücher.example",
            "GET POST https://a.example",
            "G-T https://a.example",
            "http://127.1",
            "http://2130706433",
            "http://0x7f000001",
            "http://[::1",
            "http://a b",
            "http://a?b",
        ] {
            assert!(text.parse::<HttpRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn grants_come_back_as_they_were_stored() {
        let mut grants = Grants { key_value: Some(KeyValueGrant::default()), ..Grants::default() };
        grants.values.insert("branch".to_owned(), "3".to_owned());
        grants.secrets.insert("token".to_owned(), "bank-token".to_owned());
        let http = HttpGrant { allow: BTreeSet::from(["https://api.example.com".parse().unwrap()]), ..HttpGrant::default() };
        grants.http = Some(HttpGrant { nets: BTreeSet::from(["10.0.0.0/8".parse().unwrap()]), ..http });
        grants.check().unwrap();
        assert_eq!(serde_json::from_str::<Grants>(&grants.to_json()).unwrap(), grants);
        assert!(serde_json::from_str::<Grants>(r#"{"everything":true}"#).is_err());
        assert_eq!(Grants::default().to_json(), "{}");
    }

    #[test]
    fn grants_that_cannot_be_are_told() {
        let values = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        let refused = |grants: Grants| grants.check().unwrap_err();
        assert!(refused(Grants { values: values("../x"), ..Grants::default() }).contains("\"../x\" cannot be the key"));
        assert!(
            refused(Grants { secrets: BTreeMap::from([("k".to_owned(), "a/b".to_owned())]), ..Grants::default() }).contains("the name of a secret")
        );
        assert!(refused(Grants { values: values("k"), secrets: values("k"), ..Grants::default() }).contains("a value and a secret"));
        assert!(refused(Grants { http: Some(HttpGrant::default()), ..Grants::default() }).contains("to no host"));
        for (guest, path) in
            [("data", "/srv"), ("/data/../x", "/srv"), ("/", "/srv"), ("/data/", "/srv"), ("/data", "srv"), ("/data", "/"), ("/data", "/a/./b")]
        {
            let directories = BTreeMap::from([(guest.to_owned(), DirectoryGrant { path: path.to_owned(), writable: false })]);
            assert!(refused(Grants { directories, ..Grants::default() }).contains("an absolute path below /"), "{guest} {path}");
        }
        let large = BTreeMap::from([("k".to_owned(), "x".repeat(GRANTS_BYTES_MAX))]);
        assert!(refused(Grants { values: large, ..Grants::default() }).contains("may have 65536 at most"));
    }
}
