//! What may be a record's key.

/// What the key of a Zoho record without a row begins with, before its id.
pub const WITHOUT_ROW: &str = "zoho:";

/// Bytes of a canonical key. An index entry holds some 2,700, of which others than the key need a part; the insert of a job refuses longer ones too.
pub const KEY_MAX: usize = 1024;

/// Characters of a key that a message shows.
const SHOWN: usize = 60;

/// Why the canonical key cannot be a record's, as the insert of a job would refuse it. `None`: it can.
pub fn refused(key: &str) -> Option<String> {
    if key.len() > KEY_MAX {
        return Some(format!("the key `{}` has {} bytes; at most {KEY_MAX} are possible", shown(key), key.len()));
    }
    key.starts_with(WITHOUT_ROW)
        .then(|| format!("the key `{}` begins with `{WITHOUT_ROW}`, which stands for Zoho records without a row", shown(key)))
}

/// The key, or its beginning.
pub fn shown(key: &str) -> String {
    match key.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_refused_by_its_bytes_or_its_beginning() {
        assert_eq!(refused(""), None);
        assert_eq!(refused(&"x".repeat(KEY_MAX)), None);
        assert_eq!(refused("azoho:1"), None);
        let long = refused(&"é".repeat(KEY_MAX / 2 + 1)).unwrap_or_default();
        assert!(long.contains("é…`") && long.contains("1026 bytes"), "{long}");
        assert!(refused("zoho:1").is_some_and(|reason| reason.contains("`zoho:1`")));
    }
}
