//! The file as a tree of values with their lines, before any of it is given a type; `${NAME}` is replaced here.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::finding::Finding;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// From 1; a key's value has the key's line.
    pub(super) line: usize,
    pub(super) tree: Tree,
}

#[derive(Debug, Clone)]
pub(super) enum Tree {
    Text {
        text: String,
        /// Came, in part, from the environment, where everything is text: may stand for a number or a boolean.
        substituted: bool,
    },
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// Stands for a required key that is absent, so that reading can go on and find the next mistake.
    Absent,
}

/// The way to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Path(pub(super) Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(super) fn child(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(position) => write!(f, "[{position}]")?,
                Step::Key(key) => {
                    f.write_str(if index > 0 { "." } else { "" })?;
                    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
                    if bare { f.write_str(key)? } else { write!(f, "\"{key}\"")? }
                }
            }
        }
        Ok(())
    }
}

/// The parsed file.
pub(super) struct Source {
    pub(super) root: Node,
    /// The tree as it was written, before anything was left out of it.
    pub(super) written: Node,
    /// Keys that were left out because a variable in their text is not set, and that variable.
    pub(super) unset: BTreeMap<Path, String>,
    pub(super) findings: Vec<Finding>,
}

/// Parses and substitutes. Syntax errors are findings; then the tree holds what could be understood.
pub(super) fn parse(text: &str, environment: &Environment) -> Source {
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let findings = errors.iter().map(|error| Finding {
        path: String::new(),
        line: error.span().map(|span| lines.at(span.start)),
        message: error.message().to_owned(),
    });
    let written = table(document.get_ref(), 1, &lines);
    let mut root = written.clone();
    let nothing = Node { line: 1, tree: Tree::Absent };
    let mut source = Source { root: nothing, written, unset: BTreeMap::new(), findings: findings.collect() };
    substitute(&mut root, &Path::default(), environment, &mut source);
    source.root = root;
    source
}

struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(position, _)| position).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

fn table(table: &DeTable<'_>, line: usize, lines: &Lines) -> Node {
    let entries = table.iter().map(|(key, value)| (key.get_ref().to_string(), node(value.get_ref(), lines.at(key.span().start), lines)));
    Node { line, tree: Tree::Table(entries.collect()) }
}

fn node(value: &DeValue<'_>, line: usize, lines: &Lines) -> Node {
    let tree = match value {
        DeValue::String(text) => Tree::Text { text: text.to_string(), substituted: false },
        DeValue::Boolean(value) => Tree::Bool(*value),
        DeValue::Datetime(value) => Tree::Text { text: value.to_string(), substituted: false },
        DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
            Ok(value) => Tree::Integer(value),
            Err(_) => Tree::Text { text: value.to_string(), substituted: false },
        },
        DeValue::Float(value) => match value.as_str().parse() {
            Ok(value) => Tree::Float(value),
            Err(_) => Tree::Text { text: value.to_string(), substituted: false },
        },
        DeValue::Array(items) => Tree::List(items.iter().map(|item| node(item.get_ref(), lines.at(item.span().start), lines)).collect()),
        DeValue::Table(entries) => return table(entries, line, lines),
    };
    Node { line, tree }
}

fn substitute(node: &mut Node, path: &Path, environment: &Environment, source: &mut Source) {
    match &mut node.tree {
        Tree::Table(entries) => entries.retain(|key, child| keep(child, &path.child(key), environment, source)),
        Tree::List(items) => {
            let mut index = 0;
            items.retain_mut(|child| {
                let mut place = path.clone();
                place.0.push(Step::Index(index));
                index += 1;
                keep(child, &place, environment, source)
            });
        }
        Tree::Text { .. } | Tree::Integer(_) | Tree::Float(_) | Tree::Bool(_) | Tree::Absent => {}
    }
}

/// Substitutes in one child; false when it must be left out.
fn keep(child: &mut Node, path: &Path, environment: &Environment, source: &mut Source) -> bool {
    let Tree::Text { text, substituted } = &mut child.tree else {
        substitute(child, path, environment, source);
        return true;
    };
    match expand(text, environment) {
        Ok(expanded) => {
            *substituted = expanded != *text;
            *text = expanded;
            true
        }
        Err(Trouble::Unset(name)) => {
            // A mapping that quietly loses a field would push half a record.
            if path.0.first() == Some(&Step::Key("syncs".to_owned())) && path.0.len() > 3 {
                source.findings.push(finding(path, child.line, format!("${{{name}}} is not set; set it, in the environment or in .env")));
            }
            source.unset.insert(path.clone(), name);
            false
        }
        Err(Trouble::Malformed(what)) => {
            let advice = format!("`{what}` is not a variable: write ${{NAME}}, or $${{ for these two characters themselves");
            source.findings.push(finding(path, child.line, advice));
            true
        }
    }
}

fn finding(path: &Path, line: usize, message: String) -> Finding {
    Finding { path: path.to_string(), line: Some(line), message }
}

enum Trouble {
    Unset(String),
    Malformed(String),
}

/// `${NAME}` → its value; `$${` → `${`. Values are not expanded again.
fn expand(text: &str, environment: &Environment) -> Result<String, Trouble> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            expanded.push_str(before);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let end = after.find('}').ok_or_else(|| Trouble::Malformed("${".to_owned()))?;
        let name = &after[..end];
        let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && name.starts_with(|c: char| !c.is_ascii_digit());
        if !valid {
            return Err(Trouble::Malformed(format!("${{{name}}}")));
        }
        expanded.push_str(before);
        expanded.push_str(environment.get(name).ok_or_else(|| Trouble::Unset(name.to_owned()))?);
        rest = &after[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}
