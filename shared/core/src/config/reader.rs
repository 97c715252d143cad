//! Gives the tree its types, and collects every mistake instead of stopping at the first.
//!
//! serde stops at the first error. So each error is noted with its path, the guilty value is taken out of the tree (or, where a
//! required key is absent, a placeholder put in), and reading starts again. The tree shrinks each time, so this ends.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::finding::Finding;
use super::source::{Node, Path, Source, Step, Tree};
use super::suggest::did_you_mean;

/// More mistakes than this are not looked for; nobody reads on.
const MOST_MISTAKES: usize = 200;

/// Reads `T`, adding to `source.findings`. A value returned beside findings holds placeholders: good for further checks, not for use.
pub(super) fn read<T: for<'de> Deserialize<'de>>(source: &mut Source) -> Option<T> {
    let mut reported = BTreeSet::new();
    for _ in 0..MOST_MISTAKES {
        let error = match T::deserialize(&source.root) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let container = Path(error.steps.into_iter().rev().collect());
        note_and_mend(source, container, error.kind, &mut reported);
    }
    None
}

fn note_and_mend(source: &mut Source, container: Path, kind: Kind, reported: &mut BTreeSet<Path>) {
    let line = source.root.find(&container).map(|node| node.line);
    // What an outer value lacks after an inner one was taken out is no second mistake.
    let within = reported.clone();
    let mut note = |source: &mut Source, path: &Path, line: Option<usize>, message: String| {
        if reported.insert(path.clone()) {
            source.findings.push(Finding { path: path.to_string(), line, message });
        }
    };
    match kind {
        Kind::Unknown { name, known } => {
            let path = container.child(&name);
            let line = source.root.find(&path).map(|node| node.line);
            note(source, &path, line, unknown_key(&container, &name, known));
            source.root.remove(&path);
        }
        Kind::Missing(name) => {
            let path = container.child(name);
            let line = source.written.find(&path).map(|node| node.line).or(line);
            let message = match source.unset.get(&path) {
                Some(variable) => format!("is required, and ${{{variable}}} is not set; set it, in the environment or in .env"),
                None => "is required".to_owned(),
            };
            note(source, &path, line, message);
            source.root.insert_absent(&container, name);
        }
        Kind::Other(message) => {
            let mut path = container;
            if matches!(source.root.find(&path), Some(Node { tree: Tree::Absent, .. })) {
                // A placeholder that its type refuses, noted when it was put in: no more can be learnt about what contains it.
                path.0.pop();
            } else if !within.iter().any(|inner| inner.0.starts_with(&path.0)) {
                note(source, &path, line, message);
            }
            source.root.remove(&path);
        }
    }
}

fn unknown_key(container: &Path, name: &str, known: &[&str]) -> String {
    let suggestion = did_you_mean(name, known.iter().copied());
    if !suggestion.is_empty() {
        return format!("unknown key{suggestion}");
    }
    let in_fields = container.0.len() == 4 && container.0.get(2) == Some(&Step::Key("fields".to_owned()));
    if let (true, Some(Step::Key(field))) = (in_fields, container.0.last()) {
        return format!("unknown key; a dotted Zoho field is quoted: \"{field}.{name}\" = …");
    }
    format!("unknown key; known are {}", known.join(", "))
}

impl Node {
    pub(super) fn find(&self, path: &Path) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, step| match (&node.tree, step) {
            (Tree::Table(entries), Step::Key(key)) => entries.get(key),
            (Tree::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    fn find_mut(&mut self, steps: &[Step]) -> Option<&mut Node> {
        steps.iter().try_fold(self, |node, step| match (&mut node.tree, step) {
            (Tree::Table(entries), Step::Key(key)) => entries.get_mut(key),
            (Tree::List(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        })
    }

    fn remove(&mut self, path: &Path) {
        let Some((last, parents)) = path.0.split_last() else {
            self.tree = Tree::Table(std::collections::BTreeMap::new());
            return;
        };
        match (self.find_mut(parents).map(|node| &mut node.tree), last) {
            (Some(Tree::Table(entries)), Step::Key(key)) => drop(entries.remove(key)),
            (Some(Tree::List(items)), Step::Index(index)) if *index < items.len() => drop(items.remove(*index)),
            _ => {}
        }
    }

    fn insert_absent(&mut self, container: &Path, name: &str) {
        if let Some(Node { line, tree: Tree::Table(entries) }) = self.find_mut(&container.0) {
            entries.insert(name.to_owned(), Node { line: *line, tree: Tree::Absent });
        }
    }
}

/// An error and, innermost first, the steps to it.
#[derive(Debug)]
pub(super) struct Error {
    steps: Vec<Step>,
    kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Unknown { name: String, known: &'static [&'static str] },
    Missing(&'static str),
    Other(String),
}

impl Error {
    fn new(kind: Kind) -> Self {
        Self { steps: Vec::new(), kind }
    }

    fn inside(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Unknown { name, .. } => write!(f, "unknown key {name}"),
            Kind::Missing(name) => write!(f, "{name} is required"),
            Kind::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Other(message.to_string()))
    }

    /// Names only the type of what was found: the value may be a secret.
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(_) => "a text",
            Unexpected::Signed(_) | Unexpected::Unsigned(_) => "a whole number",
            Unexpected::Float(_) => "a fraction",
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        let expected = match expected.to_string() {
            rust if rust.starts_with(['u', 'i']) && rust[1..].parse::<u8>().is_ok() => "a whole number".to_owned(),
            rust if rust == "a string" => "a text".to_owned(),
            words => words,
        };
        Self::custom(format!("expected {expected}, found {found}"))
    }

    /// Of numbers: a figure that does not fit is no secret.
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let most = match expected.to_string().as_str() {
            "u8" => u8::MAX.to_string(),
            "u16" => u16::MAX.to_string(),
            "u32" => u32::MAX.to_string(),
            "u64" => i64::MAX.to_string(),
            words => return Self::custom(format!("expected {words}")),
        };
        match found {
            Unexpected::Signed(value) => Self::custom(format!("must be a whole number from 0 to {most}, not {value}")),
            Unexpected::Unsigned(value) => Self::custom(format!("must be a whole number from 0 to {most}, not {value}")),
            _ => Self::custom(format!("must be a whole number from 0 to {most}")),
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let suggestion = did_you_mean(variant, expected.iter().copied());
        Self::custom(format!("unknown value `{variant}`{suggestion}; one of {}", expected.join(", ")))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::Unknown { name: name.to_owned(), known })
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(Kind::Missing(name))
    }
}

/// Text from the environment may stand for a number or a boolean.
macro_rules! parsed_from_environment {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match &self.tree {
                Tree::Text { text, substituted: true } => match text.trim().parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(de::Error::invalid_type(Unexpected::Str(text), &visitor)),
                },
                Tree::Absent => visitor.$visit(<$type>::default()),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.tree {
            Tree::Text { text, .. } => visitor.visit_str(text),
            Tree::Integer(value) => visitor.visit_i64(*value),
            Tree::Float(value) => visitor.visit_f64(*value),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Tree::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), current: None }),
            Tree::Absent => visitor.visit_str(""),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        match &self.tree {
            Tree::Text { text, .. } => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => self.deserialize_any(visitor),
        }
    }

    parsed_from_environment! {
        deserialize_bool visit_bool bool;
        deserialize_u8 visit_u64 u64;
        deserialize_u16 visit_u64 u64;
        deserialize_u32 visit_u64 u64;
        deserialize_u64 visit_u64 u64;
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|error| error.inside(Step::Index(index)))
    }
}

struct Entries<'de> {
    entries: std::collections::btree_map::Iter<'de, String, Node>,
    current: Option<(&'de String, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.entries.next();
        let Some((key, _)) = self.current else {
            return Ok(None);
        };
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, node) = self.current.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(node).map_err(|error| error.inside(Step::Key(key.clone())))
    }
}
