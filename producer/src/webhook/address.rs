//! Who sent a request, where proxies stand before us.

use std::net::IpAddr;

use axum::http::HeaderMap;
use sluice_core::config::network::Network;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The sender. A proxy that is trusted says in `X-Forwarded-For` who asked it, at the end of the list; so the last address that is not itself a
/// trusted proxy counts, and what stands before it, which anybody may write, does not. From anybody else the header is not believed.
pub(super) fn sender(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
    let mut sender = peer;
    for hop in lines.iter().flat_map(|line| line.split(',')).collect::<Vec<_>>().into_iter().rev() {
        if !is_trusted(sender) {
            break;
        }
        match hop.trim().parse() {
            Ok(address) => sender = address,
            Err(_) => break,
        }
    }
    sender.to_canonical()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_about_who_asked_it() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for (peer, forwarded, sender_is) in [
            ("10.0.0.1", &["203.0.113.9"][..], "203.0.113.9"),
            ("10.0.0.1", &["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 10.0.0.7"], "203.0.113.9"),
            ("10.0.0.1", &["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
            ("198.51.100.1", &["203.0.113.9"], "198.51.100.1"),
            ("10.0.0.1", &["unknown"], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:198.51.100.1", &[], "198.51.100.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            assert_eq!(sender(peer.parse().unwrap(), &headers, &trusted).to_string(), sender_is, "{peer} {forwarded:?}");
        }
    }
}
