//! "Did you mean": the known name that is nearest to a mistyped one.

/// ` (did you mean …?)`, or nothing where no candidate is near enough to be meant.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, known).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    let scored = known.into_iter().map(|name| (strsim::damerau_levenshtein(&typed, &name.to_lowercase()), name));
    let near = scored.filter(|(distance, name)| *distance <= 1 + name.len().min(typed.len()) / 4);
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_could_be_meant_is_suggested() {
        let known = ["connection", "table", "key", "fields"];
        assert_eq!(nearest("conection", known), Some("connection"));
        assert_eq!(nearest("feilds", known), Some("fields"));
        assert_eq!(nearest("Key", known), Some("key"));
        assert_eq!(nearest("banana", known), None);
    }
}
