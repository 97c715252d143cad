//! The signature of a finance webhook (finance fact 7.3): HMAC-SHA256 over the parameters and the raw body.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::scenario::Encoding;

/// The header that carries it.
pub(super) const HEADER: &str = "X-Zoho-Webhook-Signature";

/// What is signed: all parameters sorted by name, names and values without separators, then the body unless it is a
/// form, whose fields count as parameters.
pub(super) fn signed_text(parameters: &[(String, String)], body: &str) -> String {
    let mut parameters: Vec<_> = parameters.iter().collect();
    parameters.sort();
    let text: String = parameters.into_iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]).collect();
    text + body
}

/// The signature of a text. Zoho does not say how it is encoded; hex has been seen.
pub(super) fn sign(secret: &str, text: &str, encoding: Encoding) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(text.as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex = || digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match encoding {
        Encoding::Hex => hex(),
        Encoding::UpperHex => hex().to_uppercase(),
        Encoding::Base64 => BASE64_STANDARD.encode(digest),
    }
}

#[cfg(test)]
mod tests {
    use super::{Encoding, sign, signed_text};

    #[test]
    fn the_text_is_that_of_zohos_own_example() {
        let parameters = [("subscription_id".to_owned(), "90343".to_owned()), ("name".to_owned(), "basic".to_owned())];
        let body = r#"{"created_date":"2019-03-06","event_id":"5675"}"#;
        assert_eq!(signed_text(&parameters, body), r#"namebasicsubscription_id90343{"created_date":"2019-03-06","event_id":"5675"}"#);
    }

    #[test]
    fn the_digest_is_that_of_rfc_4231() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign("Jefe", "what do ya want for nothing?", Encoding::Hex), expected);
        assert_eq!(sign("Jefe", "what do ya want for nothing?", Encoding::Base64), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
    }
}
