//! Zoho's data centres and the closed list of hosts that may be given a token.
//!
//! Source: Zoho's multi-DC documentation and the data-centre tables of its SDKs. A host outside this list is never sent a
//! secret unless the configuration names it (`accounts_url`, `api_url`).

use std::fmt;
use std::str::FromStr;

use url::Url;

/// One of Zoho's data centres, named by its domain as in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the top-level domains")]
pub enum DataCenter {
    Com,
    Eu,
    In,
    ComAu,
    Jp,
    Ca,
    Sa,
    Uk,
    ComCn,
}

struct Hosts {
    name: &'static str,
    accounts: &'static str,
    api: &'static str,
}

/// A data centre that is none of the nine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown data centre `{0}`; one of com, eu, in, com.au, jp, ca, sa, uk, com.cn")]
pub struct UnknownDataCenter(String);

/// An `api_domain` that is not one of Zoho's, so no token is sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of Zoho's API hosts; set api_url if it is meant")]
pub struct UntrustedHost(pub String);

impl DataCenter {
    /// All data centres.
    pub const ALL: [Self; 9] = [Self::Com, Self::Eu, Self::In, Self::ComAu, Self::Jp, Self::Ca, Self::Sa, Self::Uk, Self::ComCn];

    /// The one table. Canada's accounts domain alone differs from its API domain.
    fn hosts(self) -> Hosts {
        let (name, accounts, api) = match self {
            Self::Com => ("com", "accounts.zoho.com", "zohoapis.com"),
            Self::Eu => ("eu", "accounts.zoho.eu", "zohoapis.eu"),
            Self::In => ("in", "accounts.zoho.in", "zohoapis.in"),
            Self::ComAu => ("com.au", "accounts.zoho.com.au", "zohoapis.com.au"),
            Self::Jp => ("jp", "accounts.zoho.jp", "zohoapis.jp"),
            Self::Ca => ("ca", "accounts.zohocloud.ca", "zohoapis.ca"),
            Self::Sa => ("sa", "accounts.zoho.sa", "zohoapis.sa"),
            Self::Uk => ("uk", "accounts.zoho.uk", "zohoapis.uk"),
            Self::ComCn => ("com.cn", "accounts.zoho.com.cn", "zohoapis.com.cn"),
        };
        Hosts { name, accounts, api }
    }

    /// The name used in the configuration: `com`, `com.au`, …
    pub fn as_str(self) -> &'static str {
        self.hosts().name
    }

    /// Where tokens are minted.
    pub fn accounts_url(self) -> String {
        format!("https://{}", self.hosts().accounts)
    }

    /// Where calls go when the token answer named no `api_domain`.
    pub fn api_url(self) -> String {
        format!("https://www.{}", self.hosts().api)
    }
}

impl fmt::Display for DataCenter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DataCenter {
    type Err = UnknownDataCenter;

    fn from_str(name: &str) -> Result<Self, UnknownDataCenter> {
        Self::ALL.into_iter().find(|center| center.as_str() == name).ok_or_else(|| UnknownDataCenter(name.to_owned()))
    }
}

/// Checks an `api_domain` out of a token answer against the closed list: https, no port, no user, no path, and a host
/// `www.`, `sandbox.` or `developer.` of one of the nine API domains.
///
/// # Errors
/// [`UntrustedHost`] for everything else.
pub fn trusted_api_domain(domain: &str) -> Result<Url, UntrustedHost> {
    let untrusted = || UntrustedHost(domain.chars().take(200).collect());
    let url = Url::parse(domain).map_err(|_| untrusted())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    let known = url.host_str().is_some_and(|host| {
        DataCenter::ALL.into_iter().any(|center| {
            ["www.", "sandbox.", "developer."].into_iter().any(|prefix| host.strip_prefix(prefix) == Some(center.hosts().api))
        })
    });
    if url.scheme() == "https" && bare && anonymous && known { Ok(url) } else { Err(untrusted()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_data_centre_is_read_back_from_its_name_and_trusts_its_own_api_host() {
        for center in DataCenter::ALL {
            assert_eq!(center.as_str().parse(), Ok(center));
            assert!(trusted_api_domain(&center.api_url()).is_ok(), "{center}");
        }
    }

    #[test]
    fn a_token_is_never_sent_to_a_host_outside_the_closed_list() {
        for domain in [
            "http://www.zohoapis.com",
            "https://zohoapis.com",
            "https://www.zohoapis.com.evil.example",
            "https://evil.example/www.zohoapis.com",
            "https://www.zohoapis.com@evil.example",
            "https://user@www.zohoapis.com",
            "https://www.zohoapis.com:8443",
            "https://www.zohoapis.com/crm",
            "https://accounts.zoho.com",
            "https://127.0.0.1",
            "www.zohoapis.com",
            "",
        ] {
            assert!(trusted_api_domain(domain).is_err(), "{domain}");
        }
        assert!(trusted_api_domain("https://sandbox.zohoapis.com.au").is_ok());
    }

    #[test]
    fn canadas_accounts_domain_differs_from_its_api_domain() {
        assert_eq!(DataCenter::Ca.accounts_url(), "https://accounts.zohocloud.ca");
        assert_eq!(DataCenter::Ca.api_url(), "https://www.zohoapis.ca");
    }
}
