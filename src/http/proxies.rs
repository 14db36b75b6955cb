//! The proxies in front of this program: which address a request comes from when it comes through them.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// `http.trusted_proxies`.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// An entry of `http.trusted_proxies` that cannot be read. It is not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {0} is not an address or a network")]
pub struct InvalidProxy(usize);

impl TrustedProxies {
    /// Reads `ADDRESS[/BITS][,…]`.
    ///
    /// # Errors
    /// When an entry is not an address or a network.
    pub fn parse(text: &str) -> Result<Self, InvalidProxy> {
        let entries = text.split(',').map(str::trim).enumerate().filter(|_| !text.trim().is_empty());
        let network = |(number, entry): (usize, &str)| {
            let address = || entry.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
            entry.parse().or_else(|_| address()).map_err(|_| InvalidProxy(number + 1))
        };
        entries.map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an address belongs to a trusted proxy.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: the last one in the headers that does not belong to a proxy. The client may have written those before it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let by_list = self.last(peer, &values(headers, "x-forwarded-for"), address);
        let by_element = self.last(peer, &values(headers, "forwarded"), for_address);
        match (by_list, by_element) {
            // One of the two is the client's own word.
            (Some(one), Some(other)) if one != other => peer,
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) => peer,
        }
    }

    fn last(&self, peer: IpAddr, values: &[String], read: fn(&str) -> Option<IpAddr>) -> Option<IpAddr> {
        let mut hop = None;
        for value in values.iter().rev() {
            let Some(address) = read(value) else {
                // A name or `unknown`: the hop before it is the last that is known.
                return Some(hop.unwrap_or(peer));
            };
            hop = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        hop
    }
}

/// The elements of a list that may be spread over several headers.
fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let texts = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    texts.flat_map(|text| text.split(',').map(|value| value.trim().to_owned()).collect::<Vec<_>>()).collect()
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1` or `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The `for` of an element of `Forwarded` (RFC 7239).
fn for_address(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    address(value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: &str, peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        TrustedProxies::parse(proxies).unwrap().client(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn the_last_untrusted_address_is_the_client() {
        let proxies = "10.0.0.0/8, fd00::/8,192.0.2.1";
        let forwarded = |value| [("x-forwarded-for", value)];
        assert_eq!(client(proxies, "198.51.100.1", &forwarded("203.0.113.9")), "198.51.100.1", "not a proxy");
        assert_eq!(client(proxies, "10.1.2.3", &forwarded("203.0.113.9, 198.51.100.7, 10.9.9.9")), "198.51.100.7");
        assert_eq!(client(proxies, "10.1.2.3", &forwarded("198.51.100.7:4711")), "198.51.100.7");
        assert_eq!(client(proxies, "10.1.2.3", &forwarded("10.9.9.9")), "10.9.9.9");
        assert_eq!(client(proxies, "10.1.2.3", &forwarded("198.51.100.7, unknown")), "10.1.2.3");
        assert_eq!(client(proxies, "10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(client(proxies, "::ffff:10.1.2.3", &forwarded("198.51.100.7")), "198.51.100.7");
        let element = [("forwarded", r#"for=203.0.113.9;proto=https, For="[2001:db8::1]:9""#)];
        assert_eq!(client(proxies, "192.0.2.1", &element), "2001:db8::1");
        let both = [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(client(proxies, "10.1.2.3", &both), "10.1.2.3");
        let lines = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(client(proxies, "10.1.2.3", &lines), "198.51.100.7");
        assert_eq!(client("", "10.1.2.3", &forwarded("198.51.100.7")), "10.1.2.3");
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named_by_its_number() {
        assert_eq!(TrustedProxies::parse("10.0.0.0/8,10.0.0.0/40").unwrap_err(), InvalidProxy(2));
        assert_eq!(TrustedProxies::parse("proxy.example").unwrap_err(), InvalidProxy(1));
    }
}
