//! The accounts server: grant codes, refresh tokens, access tokens, and the ways they are refused.
//!
//! Failures are answered with status 200 and `{"error": …}`, as Zoho does (OAuth facts 1.5). Must never answer a
//! refresh with a refresh token.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    clock::{now_us, scaled},
    exchange::{Answer, Request},
    ids::Ids,
    scenario::Scenario,
};

/// Life of a grant code in Zoho's seconds.
const CODE_SECONDS: f64 = 180.0;
/// What every token may do.
const SCOPES: &str = "ZohoSubscriptions.fullaccess.all ZohoInventory.FullAccess.all ZohoCRM.modules.ALL ZohoCRM.settings.ALL \
                      ZohoCRM.coql.READ ZohoCRM.notifications.ALL ZohoCRM.org.READ ZohoSearch.securesearch.READ";
/// Most mints whose times are kept for the statistics.
const MOST_MINTS: usize = 10_000;

/// What a client needs to call the simulator. Made up at its start unless the scenario gives them.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// OAuth client id.
    pub client_id: String,
    /// OAuth client secret.
    pub client_secret: String,
    /// A refresh token with every scope.
    pub refresh_token: String,
}

/// One access token that was handed out.
#[derive(Debug)]
struct AccessToken {
    text: String,
    refresh_token: String,
    expires: Instant,
}

/// One mint, for the statistics.
#[derive(Clone, Debug)]
struct Mint {
    at: Instant,
    at_us: i64,
    refresh_token: String,
}

/// The accounts server's state.
#[derive(Debug)]
pub(crate) struct Accounts {
    credentials: Credentials,
    refresh_tokens: BTreeSet<String>,
    codes: BTreeMap<String, Instant>,
    access_tokens: VecDeque<AccessToken>,
    mints: VecDeque<Mint>,
    minted: u64,
    throttled: u64,
    api_domain: String,
}

impl Accounts {
    pub(crate) fn new(scenario: &Scenario, api_domain: String, ids: &mut Ids) -> Self {
        let given = &scenario.oauth;
        let credentials = Credentials {
            client_id: given.client_id.clone().unwrap_or_else(|| ids.client_id()),
            client_secret: given.client_secret.clone().unwrap_or_else(|| ids.hex(42)),
            refresh_token: given.refresh_token.clone().unwrap_or_else(|| ids.token()),
        };
        Self {
            refresh_tokens: BTreeSet::from([credentials.refresh_token.clone()]),
            credentials,
            codes: BTreeMap::new(),
            access_tokens: VecDeque::new(),
            mints: VecDeque::new(),
            minted: 0,
            throttled: 0,
            api_domain,
        }
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Whether this is a live access token.
    pub(crate) fn accepts(&self, token: &str, now: Instant) -> bool {
        self.access_tokens.iter().any(|access| access.text == token && now < access.expires)
    }

    /// `POST /oauth/v2/token`, with parameters in the query or in a form.
    pub(crate) fn token(&mut self, request: &Request, scenario: &Scenario, ids: &mut Ids) -> Answer {
        let parameters = parameters(request);
        let get = |name: &str| parameters.get(name).map_or("", String::as_str);
        if get("client_id") != self.credentials.client_id {
            return refused("invalid_client");
        }
        if get("client_secret") != self.credentials.client_secret {
            return refused("invalid_client_secret");
        }
        let now = request.arrived;
        match get("grant_type") {
            "refresh_token" if self.refresh_tokens.contains(get("refresh_token")) => {
                self.mint(get("refresh_token"), false, now, scenario, ids)
            }
            "authorization_code" if self.take_code(get("code"), now) => {
                let refresh_token = ids.token();
                self.refresh_tokens.insert(refresh_token.clone());
                self.mint(&refresh_token, true, now, scenario, ids)
            }
            "refresh_token" | "authorization_code" => refused("invalid_code"),
            // Not of Zoho's documentation, which names no answer for a wrong grant type.
            _ => refused("invalid_request"),
        }
    }

    fn take_code(&mut self, code: &str, now: Instant) -> bool {
        self.codes.remove(code).is_some_and(|expires| now < expires)
    }

    fn mint(&mut self, refresh_token: &str, with_refresh_token: bool, now: Instant, scenario: &Scenario, ids: &mut Ids) -> Answer {
        let rules = &scenario.oauth;
        let window = scaled(rules.mint_window_seconds, scenario.time_scale);
        let in_window = |mint: &&Mint| mint.refresh_token == refresh_token && now.saturating_duration_since(mint.at) < window;
        if self.mints.iter().filter(in_window).count() >= rules.mints {
            self.throttled += 1;
            return throttled(rules.throttle_status);
        }
        if self.mints.len() == MOST_MINTS {
            self.mints.pop_front();
        }
        self.minted += 1;
        self.mints.push_back(Mint { at: now, at_us: now_us(), refresh_token: refresh_token.to_owned() });
        let life = scaled(rules.token_seconds, scenario.time_scale);
        let access = AccessToken { text: ids.token(), refresh_token: refresh_token.to_owned(), expires: now + life };
        let mut body = json!({
            "access_token": access.text,
            "scope": SCOPES,
            "api_domain": self.api_domain,
            "token_type": "Bearer",
            "expires_in": life.as_secs(),
        });
        if with_refresh_token {
            body["refresh_token"] = refresh_token.into();
        }
        self.access_tokens.push_back(access);
        self.end_oldest(refresh_token, rules.live_tokens, now);
        Answer::json(200, body)
    }

    /// Keeps at most `most` live tokens of one refresh token, and forgets those that have run out.
    fn end_oldest(&mut self, refresh_token: &str, most: usize, now: Instant) {
        self.access_tokens.retain(|access| now < access.expires);
        let live = self.access_tokens.iter().filter(|access| access.refresh_token == refresh_token).count();
        let mut surplus = live.saturating_sub(most);
        self.access_tokens.retain(|access| {
            let end = surplus > 0 && access.refresh_token == refresh_token;
            surplus -= usize::from(end);
            !end
        });
    }

    /// `POST /oauth/v2/token/revoke`.
    pub(crate) fn revoke_by_client(&mut self, request: &Request) -> Answer {
        let parameters = parameters(request);
        match parameters.get("token") {
            Some(token) if self.revoke(token) => Answer::json(200, json!({ "status": "success" })),
            // Fact 1.5: a bogus token has been seen to get an HTML page.
            _ => Answer::html(400, "<html><body>Invalid token</body></html>"),
        }
    }

    /// Ends a refresh token and all its access tokens; false if there was none.
    pub(crate) fn revoke(&mut self, refresh_token: &str) -> bool {
        self.access_tokens.retain(|access| access.refresh_token != refresh_token);
        self.refresh_tokens.remove(refresh_token)
    }

    /// Ends every access token at once, as when Zoho loses its sessions.
    pub(crate) fn expire_access_tokens(&mut self) -> usize {
        let count = self.access_tokens.len();
        self.access_tokens.clear();
        count
    }

    /// A grant code as the console of a self client shows it.
    pub(crate) fn new_code(&mut self, time_scale: f64, ids: &mut Ids) -> String {
        let code = ids.token();
        self.codes.insert(code.clone(), Instant::now() + scaled(CODE_SECONDS, time_scale));
        code
    }

    /// A further refresh token, as of another user's consent.
    pub(crate) fn new_refresh_token(&mut self, ids: &mut Ids) -> String {
        let token = ids.token();
        self.refresh_tokens.insert(token.clone());
        token
    }

    /// Forgets the mints, for the statistics and for the throttle.
    pub(crate) fn forget_mints(&mut self) {
        self.mints.clear();
        self.minted = 0;
        self.throttled = 0;
    }

    /// The mints, and the most of one refresh token in any window.
    pub(crate) fn statistics(&self, window: Duration) -> Value {
        let mut by_token: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
        for mint in &self.mints {
            by_token.entry(&mint.refresh_token).or_default().push(mint.at);
        }
        let most = by_token.into_values().map(|times| most_in_window(times, window)).max().unwrap_or(0);
        json!({
            "minted": self.minted,
            "minted_at_us": self.mints.iter().map(|mint| mint.at_us).collect::<Vec<_>>(),
            "most_in_window": most,
            "window_ms": u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            "throttled": self.throttled,
        })
    }
}

/// The most of these moments that lie in any half-open window of this length.
pub(crate) fn most_in_window(mut times: Vec<Instant>, window: Duration) -> usize {
    times.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (index, at) in times.iter().enumerate() {
        while at.saturating_duration_since(times[first]) >= window && first < index {
            first += 1;
        }
        most = most.max(index + 1 - first);
    }
    most
}

fn parameters(request: &Request) -> BTreeMap<String, String> {
    let form = url::form_urlencoded::parse(&request.body).into_owned();
    request.query.iter().cloned().chain(form).collect()
}

fn refused(code: &str) -> Answer {
    Answer::json(200, json!({ "error": code }))
}

fn throttled(status: u16) -> Answer {
    let description = "You have made too many requests continuously. Please try again after some time.";
    Answer::json(status, json!({ "error": "Access Denied", "error_description": description }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::most_in_window;

    #[test]
    fn a_window_is_half_open_and_the_fullest_one_counts() {
        let start = Instant::now();
        let at = |seconds: &[u64]| seconds.iter().map(|s| start + Duration::from_secs(*s)).collect::<Vec<_>>();
        let minute = Duration::from_secs(60);
        assert_eq!(most_in_window(at(&[]), minute), 0);
        assert_eq!(most_in_window(at(&[0, 60, 120]), minute), 1);
        assert_eq!(most_in_window(at(&[130, 0, 59, 60, 61]), minute), 3, "59, 60 and 61, in any order of arrival");
    }
}
