//! Turns a product, a path and a query into an address, and refuses paths that could leave the product's base path.

use url::Url;

use crate::hosts::trusted_api_domain;

/// Longest path accepted, in bytes.
pub const MAX_PATH_BYTES: usize = 2048;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty or starts with something else.
    #[error("a path starts with one `/`")]
    NoLeadingSlash,
    /// It holds `//`, `..`, `\`, `?` or `#`, plain or percent-encoded.
    #[error("a path must not hold `{0}`, plain or percent-encoded")]
    Forbidden(&'static str),
    /// It holds a control character, a plain space or a broken percent-encoding.
    #[error("a path must not hold control characters, spaces or broken percent-encoding")]
    Character,
    /// It is longer than [`MAX_PATH_BYTES`].
    #[error("a path is at most {MAX_PATH_BYTES} bytes long")]
    TooLong,
}

/// Checks a path of a `call`: one leading `/`, and neither `//`, `..`, `\`, `?`, `#` nor any encoded form of them.
///
/// # Errors
/// [`PathError`], saying what is wrong.
pub fn check_path(path: &str) -> Result<(), PathError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    if !path.starts_with('/') {
        return Err(PathError::NoLeadingSlash);
    }
    if path.contains(' ') {
        return Err(PathError::Character);
    }
    // Decoded again and again, since a proxy may decode once more than we know: `%252e`.
    let mut current = path.as_bytes().to_vec();
    loop {
        check_plain(&current)?;
        let decoded = percent_decoded(&current)?;
        if decoded.len() == current.len() {
            return Ok(());
        }
        current = decoded;
    }
}

fn check_plain(path: &[u8]) -> Result<(), PathError> {
    for (forbidden, shown) in [("//", "//"), ("..", ".."), ("\\", "\\"), ("?", "?"), ("#", "#")] {
        if path.windows(forbidden.len()).any(|part| part == forbidden.as_bytes()) {
            return Err(PathError::Forbidden(shown));
        }
    }
    if path.iter().any(|byte| byte.is_ascii_control()) {
        return Err(PathError::Character);
    }
    Ok(())
}

/// Decodes once. A `%` that starts no pair of hexadecimal digits is refused: parsers disagree about it.
fn percent_decoded(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|&b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) => decoded.push(high << 4 | low),
            _ => return Err(PathError::Character),
        }
    }
    Ok(decoded)
}

/// One path segment out of a record id, a plan code or a module name, percent-encoded.
///
/// # Errors
/// A sentence, when the segment is empty or `.` or `..`, which no encoding can carry.
pub(crate) fn segment(raw: &str) -> Result<String, String> {
    if raw.is_empty() || raw == "." || raw == ".." || raw.len() > 500 {
        return Err(format!("`{raw}` cannot stand in a path"));
    }
    let mut encoded = String::with_capacity(raw.len());
    for byte in raw.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(encoded)
}

/// Where calls go: the configured address, else the token's `api_domain` if it is Zoho's, else the data centre's.
pub(crate) fn api_base(configured: Option<&Url>, api_domain: Option<&str>, fallback: &str) -> Result<Url, String> {
    match (configured, api_domain) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(domain)) => trusted_api_domain(domain).map_err(|e| e.to_string()),
        (None, None) => Url::parse(fallback).map_err(|e| e.to_string()),
    }
}

/// The whole address. `path` has been checked, or made of [`segment`]s; that it stayed under the base is checked once more.
pub(crate) fn compose(base: &Url, base_path: &str, path: &str, query: &[(String, String)]) -> Result<Url, String> {
    let prefix = format!("{}{base_path}", base.path().trim_end_matches('/'));
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.set_path(&format!("{prefix}{path}"));
    if !url.path().starts_with(&format!("{prefix}/")) {
        return Err("the path leaves the product".to_owned());
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Product;

    #[test]
    fn ordinary_paths_are_accepted() {
        for path in ["/", "/items/123", "/item/1/customfields", "/Products/1.5", "/plans/a%20b", "/plans/a%2Fb", "/söl", "/a.b"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_path_that_could_leave_the_product_is_refused_in_every_spelling() {
        for path in [
            "",
            "items",
            "//items",
            "/items//1",
            "/../books",
            "/items/..",
            "/items/%2e%2e/x",
            "/items/%2E./x",
            "/items/.%2e",
            "/items/%252e%252e/x",
            "/items/%25252e%25252e",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a?b=c",
            "/a%3fb",
            "/a#b",
            "/a%23b",
            "/a%2f%2fb",
            "/%2fb",
            "/a/%2Fb",
            "/a%252f/b",
            "/.\t./b",
            "/.%09./b",
            "/a b",
            "/a\r\nHost: x",
            "/a%0d%0a",
            "/a%00",
            "/a%",
            "/a%2",
            "/a%zz",
            "%2fitems",
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert_eq!(check_path(&format!("/{}", "a".repeat(MAX_PATH_BYTES))), Err(PathError::TooLong));
    }

    #[test]
    fn a_plan_code_with_any_character_stays_one_segment() {
        let base = Url::parse("https://www.zohoapis.com").unwrap();
        let path = format!("/plans/{}", segment("a/b?c#d é%2e").unwrap());
        let url = compose(&base, Product::Billing.base_path(), &path, &[]).unwrap();
        assert_eq!(url.as_str(), "https://www.zohoapis.com/billing/v1/plans/a%2Fb%3Fc%23d%20%C3%A9%252e");
        assert!(segment("..").is_err() && segment(".").is_err() && segment("").is_err());
    }

    #[test]
    fn query_values_are_encoded_a_plus_sign_too() {
        let base = Url::parse("http://127.0.0.1:9100/zoho/").unwrap();
        let query = [("last_modified_time".to_owned(), "2026-06-09T00:00:00+0200".to_owned())];
        let url = compose(&base, Product::Books.base_path(), "/invoices", &query).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:9100/zoho/books/v3/invoices?last_modified_time=2026-06-09T00%3A00%3A00%2B0200");
    }

    #[test]
    fn an_api_domain_that_is_not_zohos_is_refused_unless_an_address_is_configured() {
        let own = Url::parse("http://127.0.0.1:9100").unwrap();
        assert!(api_base(None, Some("https://evil.example"), "https://www.zohoapis.com").is_err());
        assert_eq!(api_base(Some(&own), Some("https://evil.example"), "x").unwrap(), own);
        assert_eq!(api_base(None, None, "https://www.zohoapis.eu").unwrap().host_str(), Some("www.zohoapis.eu"));
    }
}
