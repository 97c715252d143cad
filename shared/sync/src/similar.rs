//! Names that may be the same company: "ABC Corp", "A.B.C. Corp", "ABC Corporation". Pure; it asks nobody.
//!
//! Only names that are equal but for case, punctuation and spaces are ever taken for the same. What differs in its legal form, or in a
//! letter, may be another company: a person decides. Never a guess.

use std::collections::BTreeSet;

/// What a name ends in that says how a company is founded, and not which one it is.
const LEGAL_FORMS: &[&str] = &[
    "ab",
    "ag",
    "aps",
    "bv",
    "cc",
    "co",
    "company",
    "corp",
    "corporation",
    "gmbh",
    "inc",
    "incorporated",
    "kg",
    "limited",
    "llc",
    "llp",
    "lp",
    "ltd",
    "npc",
    "nv",
    "oy",
    "plc",
    "proprietary",
    "pte",
    "pty",
    "pvt",
    "sa",
    "sarl",
    "sas",
    "soc",
    "spa",
    "srl",
];

/// A record of Zoho's that may be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The row that is linked to it already.
    pub row: Option<String>,
}

/// What is to become of a record without link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing in Zoho is called like it: it is made.
    New,
    /// This Zoho record is it.
    Adopt(String),
    /// It may be one of these: a person decides.
    Person(Vec<Candidate>),
}

/// How much two names are alike, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Likeness {
    /// They are not.
    Different,
    /// But for the legal form, spaces, a letter or two, or a part at the end.
    Similar,
    /// But for case, punctuation, spaces between words and a leading "the".
    Normalised,
    /// Letter by letter, but for case and surrounding spaces, as CRM compares unique values.
    Exact,
}

/// Judges what was found in Zoho for a name. An exact one is it, also where others are similar; one that is equal when normalised only if it
/// stands alone; and none of them if another row has it.
pub fn judge(name: &str, found: &[Candidate]) -> Judgement {
    let alike: Vec<(Likeness, &Candidate)> = found.iter().map(|one| (likeness(name, &one.name), one)).collect();
    let of = |least: Likeness| alike.iter().filter(move |(likeness, _)| *likeness >= least).map(|(_, one)| *one);
    let exact: Vec<&Candidate> = of(Likeness::Exact).collect();
    let all: Vec<&Candidate> = of(Likeness::Similar).collect();
    match (exact.as_slice(), all.as_slice()) {
        (_, []) => Judgement::New,
        ([one], _) if one.row.is_none() => Judgement::Adopt(one.id.clone()),
        ([], [one]) if one.row.is_none() && of(Likeness::Normalised).count() == 1 => Judgement::Adopt(one.id.clone()),
        _ => Judgement::Person(all.into_iter().cloned().collect()),
    }
}

/// Compares two names.
pub fn likeness(one: &str, other: &str) -> Likeness {
    if one.trim().to_lowercase() == other.trim().to_lowercase() {
        return if one.trim().is_empty() { Likeness::Different } else { Likeness::Exact };
    }
    let (one, other) = (words(one), words(other));
    if one.is_empty() || other.is_empty() {
        return Likeness::Different;
    }
    if one == other {
        return Likeness::Normalised;
    }
    let (one, other) = (without_form(&one), without_form(&other));
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    // one word that many names begin with says nothing
    let continues = short.len() >= 2 && long.starts_with(short);
    if continues || nearly(&one.concat(), &other.concat()) { Likeness::Similar } else { Likeness::Different }
}

/// How Zoho's names that may be similar begin, as a COQL `like` pattern: letters, digits and `%` only. The narrower, the fewer it finds:
/// 0 the first four letters (of initials each with anything between: "A.B.C." is found by "ABC"), 1 the first word, from 2 on all words.
/// `None`: the name has no letter to look for.
pub fn pattern(name: &str, narrowness: u8) -> Option<String> {
    if narrowness >= 2 {
        let words = words(name);
        return (!words.is_empty()).then(|| format!("{}%", without_form(&words).join("%")));
    }
    let lower = name.to_lowercase();
    let named: Vec<&str> = lower.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).collect();
    let first = match named.as_slice() {
        ["the", second, ..] => second,
        [first, ..] => *first,
        [] => return None,
    };
    let letters = first.chars().filter(|letter| letter.is_alphanumeric()).count();
    let most = if narrowness == 0 { 4 } else { letters };
    let initials = narrowness == 0 && letters < 4;
    let (mut pattern, mut taken) = (String::new(), 0);
    for letter in first.chars() {
        match letter.is_alphanumeric() {
            true if taken == most => break,
            true => {
                pattern.push(letter);
                taken += 1;
                if initials {
                    pattern.push('%');
                }
            }
            false if pattern.ends_with('%') || pattern.is_empty() => {}
            false => pattern.push('%'),
        }
    }
    Some(if pattern.ends_with('%') { pattern } else { pattern + "%" })
}

/// The words of a name: lower case, without punctuation, "&" and "+" as "and", single letters joined ("A. B. C." is "abc"), no leading "the".
fn words(name: &str) -> Vec<String> {
    let mut spaced = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '&' | '+' => spaced.push_str(" and "),
            '.' | '\'' | '’' | '`' => {}
            letter if letter.is_alphanumeric() => spaced.extend(letter.to_lowercase()),
            _ => spaced.push(' '),
        }
    }
    let mut words: Vec<String> = Vec::new();
    let mut initials = false;
    for word in spaced.split_whitespace() {
        let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
        match words.last_mut() {
            Some(last) if initial && initials => last.push_str(word),
            _ => words.push(word.to_owned()),
        }
        initials = initial;
    }
    if words.len() > 1 && words[0] == "the" {
        words.remove(0);
    }
    words
}

/// The words before the legal form; at least one is left.
fn without_form(words: &[String]) -> &[String] {
    let mut rest = words;
    while let [kept @ .., last] = rest {
        if kept.is_empty() || !(LEGAL_FORMS.contains(&last.as_str()) || last == "and") {
            break;
        }
        rest = kept;
    }
    rest
}

/// Whether texts differ by no more than a slip of the pen: none in short ones, one letter from five on, two from ten on. Digits are never a slip.
fn nearly(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let digits = |text: &str| text.chars().filter(|letter| letter.is_numeric()).collect::<String>();
    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let allowed = match a.len().min(b.len()) {
        0..=4 => return false,
        5..=9 => 1,
        _ => 2,
    };
    a.len().abs_diff(b.len()) <= allowed && digits(one) == digits(other) && distance(&a, &b) <= allowed
}

/// Letters to insert, remove, change or swap with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (rows[i][j] + usize::from(x != y)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Of several new names, those that must not be made in one go: each is similar to one that stands before it. By position.
pub fn followers<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<usize> {
    let names: Vec<&str> = names.into_iter().collect();
    let follows = |at: usize| names[..at].iter().any(|before| likeness(before, names[at]) >= Likeness::Similar);
    (0..names.len()).filter(|at| follows(*at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_alike_by_degrees() {
        use Likeness::{Different, Exact, Normalised, Similar};
        for (one, other, expected) in [
            ("ABC Corp", " abc corp", Exact),
            ("ABC Corp", "A.B.C. Corp.", Normalised),
            ("A B C Corp", "ABC-Corp", Normalised),
            ("Smith & Sons", "Smith and Sons", Normalised),
            ("The Cape Bakery", "Cape Bakery", Normalised),
            ("Karoo Optics (Pty) Ltd", "Karoo Optics Pty Ltd", Normalised),
            ("O'Brien Freight", "OBrien Freight", Normalised),
            // another legal form may be another company
            ("ABC Corp", "ABC Corporation", Similar),
            ("ABC Inc", "ABC Limited", Similar),
            ("Karoo Optics", "Karoo Optics (Pty) Ltd", Similar),
            ("Smith & Co", "Smith", Similar),
            // a slip of the pen, a space, a part more
            ("Overberg Vineyards", "Overberg Vinyards", Similar),
            ("Harbuor Trading", "Harbour Trading", Similar),
            ("DataTech", "Data Tech", Similar),
            ("Cape Bakery", "Cape Bakery Stellenbosch", Similar),
            // not enough to ask anybody
            ("ABC Corp", "ABD Corp", Different),
            ("Shop 12", "Shop 13", Different),
            ("Cape Bakery", "Cape Dental", Different),
            ("Cape", "Cape Dental", Different),
            ("", "", Different),
            ("Ltd", "Inc", Different),
            ("...", "ABC", Different),
        ] {
            assert_eq!(likeness(one, other), expected, "{one} / {other}");
            assert_eq!(likeness(other, one), expected, "{other} / {one}");
        }
    }

    fn found(names: &[&str]) -> Vec<Candidate> {
        let candidate = |(at, name): (usize, &&str)| {
            let (name, row) = name.strip_suffix(" (7)").map_or((*name, None), |name| (name, Some("7".to_owned())));
            Candidate { id: at.to_string(), name: name.to_owned(), row }
        };
        names.iter().enumerate().map(candidate).collect()
    }

    #[test]
    fn one_that_is_surely_meant_is_adopted_and_a_person_decides_the_rest() {
        let adopt = |id: &str| Judgement::Adopt(id.to_owned());
        for (there, expected) in [
            (&[][..], Judgement::New),
            (&["XYZ Corp"], Judgement::New),
            (&["ABC Corp"], adopt("0")),
            (&["ABC Corporation", "ABC Corp"], adopt("1")),
            (&["XYZ", "A.B.C. Corp"], adopt("1")),
        ] {
            assert_eq!(judge("ABC Corp", &found(there)), expected, "{there:?}");
        }
        for there in [
            &["ABC Corporation"][..],
            &["A.B.C. Corp", "ABC-Corp"],
            &["A.B.C. Corp", "ABC Corporation"],
            &["ABC Corp", "abc corp"],
            &["ABC Corp (7)"],
            &["A.B.C. Corp (7)"],
        ] {
            assert_eq!(judge("ABC Corp", &found(there)), Judgement::Person(found(there)), "{there:?}");
        }
        assert_eq!(judge("ABC Corp", &found(&["XYZ", "ABC Inc"])), Judgement::Person(found(&["XYZ", "ABC Inc"]).split_off(1)));
    }

    #[test]
    fn what_is_looked_for_holds_nothing_but_letters_and_wildcards() {
        for (name, patterns) in [
            ("The Harbour Trading Co", ["harb%", "harbour%", "harbour%trading%"]),
            ("ABC Corp", ["a%b%c%", "abc%", "abc%"]),
            ("A.B.C. Corp", ["a%b%c%", "a%b%c%", "abc%"]),
            ("O'Brien", ["o%bri%", "o%brien%", "obrien%"]),
            ("- (New) Start", ["n%e%w%", "new%", "new%start%"]),
            ("50%_off' or id > '1", ["50%of%", "50%off%", "50%off%or%id%1%"]),
        ] {
            for (narrowness, expected) in (0..).zip(patterns) {
                assert_eq!(pattern(name, narrowness).as_deref(), Some(expected), "{name}");
            }
        }
        assert_eq!(pattern(" - ", 0), None);
    }

    #[test]
    fn of_similar_new_names_one_is_made_first() {
        assert_eq!(followers(["ABC Corp", "Cape Bakery", "ABC Corporation", "cape bakery", "Karoo"]), BTreeSet::from([2, 3]));
    }
}
