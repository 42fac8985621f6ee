use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Addresses with a common beginning, as in `10.1.0.0/16`; an address alone is a net of one. IPv4 addresses in IPv6 notation count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no net; says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address and no net: it should look like 10.1.2.3, 10.1.0.0/16 or fd00:1::/32, with nothing behind the prefix")]
pub struct NoNet(String);

impl Net {
    /// Whether an address in its canonical form ([`IpAddr::to_canonical`]) is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => own.to_bits() & mask32(self.prefix) == other.to_bits() & mask32(self.prefix),
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() & mask128(self.prefix) == other.to_bits() & mask128(self.prefix),
            _ => false,
        }
    }

    /// The net of one address.
    pub fn of(address: IpAddr) -> Net {
        let address = address.to_canonical();
        Net { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Net {
    type Err = NoNet;

    fn from_str(text: &str) -> Result<Net, NoNet> {
        let refuse = || NoNet(text.to_owned());
        let Some((address, prefix)) = text.split_once('/') else {
            return Ok(Net::of(text.parse().map_err(|_| refuse())?));
        };
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(refuse)?;
        let rest_is_zero = match address {
            IpAddr::V4(address) => address.to_bits() & !mask32(prefix) == 0,
            IpAddr::V6(address) => address.to_bits() & !mask128(prefix) == 0,
        };
        // A net of mapped addresses would never be asked for: those are looked at as IPv4.
        let mapped = address.to_canonical() != address;
        if rest_is_zero && !mapped { Ok(Net { address, prefix }) } else { Err(refuse()) }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.prefix) {
            (IpAddr::V4(address), 32) => write!(f, "{address}"),
            (IpAddr::V6(address), 128) => write!(f, "{address}"),
            (address, prefix) => write!(f, "{address}/{prefix}"),
        }
    }
}

impl Serialize for Net {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Net, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_holds_what_begins_like_it() {
        let contains = |net: &str, address: &str| net.parse::<Net>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.1.0.0/16", "10.1.255.3") && !contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("0.0.0.0/0", "8.8.8.8") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00:1::/32", "fd00:1:2::3") && !contains("fd00:1::/32", "fd00:2::"));
        assert!(contains("::/0", "2001:db8::1") && contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("::ffff:127.0.0.1", "127.0.0.1"));
    }

    #[test]
    fn what_is_no_net_is_refused() {
        for text in
            ["", "10", "10.1.2.3/16", "10.0.0.0/33", "::1/129", "::1/64", "10.0.0.0/-1", "localhost", "::ffff:10.0.0.0/104", "127.1", "0x7f.0.0.1"]
        {
            assert!(text.parse::<Net>().is_err(), "{text}");
        }
        for text in ["10.1.0.0/16", "10.1.2.3", "fd00:1::/32", "::1"] {
            assert_eq!(text.parse::<Net>().unwrap().to_string(), text);
        }
    }
}
