//! Who may ask. Tokens are compared by hash and in constant time; a page signs in with the same token, kept in a cookie.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use sluice_core::config::section::Http;
use sluice_core::db::Db;
use subtle::ConstantTimeEq;

use super::{State, api};

const COOKIE: &str = "sluice";

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    Read,
    Admin,
}

/// Hashes of the tokens that open something.
pub(super) struct Tokens {
    admin: Vec<u8>,
    read: Option<Vec<u8>>,
}

impl Tokens {
    /// From the configuration; without an admin token there, the one made before, or one made now, which is the second value.
    pub(super) async fn load(http: &Http, db: &Db) -> Result<(Self, Option<String>), sqlx::Error> {
        let configured = |token: &SecretString| Some(token.expose_secret()).filter(|token| !token.is_empty()).map(hash);
        let read = http.read_token.as_ref().and_then(configured);
        if let Some(admin) = http.admin_token.as_ref().and_then(configured) {
            return Ok((Self { admin, read }, None));
        }
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let made = sqlx::query!(
            "insert into sluice.http_token (name, hash) values ('admin', $1) on conflict on constraint http_token_pkey do nothing",
            hash(&token)
        )
        .execute(db)
        .await?;
        let admin = sqlx::query_scalar!("select hash from sluice.http_token where name = 'admin'").fetch_one(db).await?;
        Ok((Self { admin, read }, (made.rows_affected() == 1).then_some(token)))
    }

    fn right_of(&self, token: &str) -> Option<Right> {
        let given = hash(token);
        let admin = bool::from(given.ct_eq(&self.admin));
        let read = self.read.as_ref().is_some_and(|read| bool::from(given.ct_eq(read)));
        if admin { Some(Right::Admin) } else { read.then_some(Right::Read) }
    }
}

fn hash(token: impl AsRef<str>) -> Vec<u8> {
    Sha256::digest(token.as_ref().as_bytes()).to_vec()
}

/// Names under which we may be asked. An address is no name: what a foreign page could make a browser send us always carries one.
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    pub(super) fn new(http: &Http) -> Self {
        let names = if http.hosts.is_empty() { vec!["localhost".to_owned()] } else { http.hosts.clone() };
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    fn allow(&self, host: &str) -> bool {
        if host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = host.to_ascii_lowercase();
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        self.0.iter().any(|allowed| *allowed == name || *allowed == host)
    }
}

/// Checks host and token. `?token=` on a page signs in: the token goes into a cookie and out of the address.
pub(super) async fn guard(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if matches!(path, "/health" | "/ready") || state.0.hooks.is_address(path) {
        return next.run(request).await;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(|host| state.0.hosts.allow(host)) {
        return api::problem(StatusCode::MISDIRECTED_REQUEST, "unknown host name; [http] hosts lists those that are served");
    }
    if path == "/style.css" || (path == "/metrics" && state.0.metrics_open) {
        return next.run(request).await;
    }
    if let (&Method::GET, Some(token)) = (request.method(), token_in_query(request.uri()))
        && state.0.tokens.right_of(token).is_some()
    {
        return signed_in(path, token);
    }
    let needed = if request.method() == Method::GET { Right::Read } else { Right::Admin };
    match token_in_headers(request.headers()).and_then(|token| state.0.tokens.right_of(token)) {
        Some(right) if right >= needed => next.run(request).await,
        Some(_) => api::problem(StatusCode::FORBIDDEN, "this token may only look"),
        None => {
            let mut refused =
                api::problem(StatusCode::UNAUTHORIZED, "send \"Authorization: Bearer TOKEN\", or open /?token=TOKEN to sign in");
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refused
        }
    }
}

fn token_in_query(uri: &Uri) -> Option<&str> {
    uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token="))
}

fn token_in_headers(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut cookie = cookies.filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    bearer.or_else(|| cookie.next()).map(str::trim)
}

/// The cookie is only ever sent back to us, never readable by a script, and with no request that another site starts but a plain link.
fn signed_in(path: &str, token: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    // A token with characters that a cookie cannot hold is for programs: they send it in a header.
    if let Ok(cookie) = HeaderValue::from_str(&format!("{COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000")) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    if let Ok(location) = HeaderValue::from_str(path) {
        headers.insert(header::LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_name_is_refused_and_an_address_is_not() {
        let hosts = Hosts::new(&Http { hosts: vec!["sluice.example".to_owned()], ..Http::default() });
        for (host, allowed) in [
            ("sluice.example", true),
            ("Sluice.Example:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("10.0.0.7", true),
            ("localhost:8080", false),
            ("evil.example:8080", false),
            ("", false),
        ] {
            assert_eq!(hosts.allow(host), allowed, "{host}");
        }
        assert!(Hosts::new(&Http::default()).allow("localhost:8080"));
    }
}
