//! Outgoing HTTP, as it is granted: rules of hosts and methods, and limits.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Net;
use super::limits::millis;

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
}
