//! Search: by criteria, e-mail, phone or word, in an index that lags behind the records (CRM fact 2.10).

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::{
    Context, Crm, Module, Refusal,
    compare::{Cell, Literal, Row, cell},
    meta::Field,
    read::pick,
};
use crate::exchange::Answer;

/// Most conditions (10 and 15 are both documented).
const MOST_CONDITIONS: usize = 10;
/// Most values of an `in`.
const MOST_VALUES: usize = 100;

/// What a search looks for.
enum Criteria {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Is {
        field: String,
        operator: String,
        values: Vec<Literal>,
    },
    /// Any field of these types, or of any type, equals or contains.
    Any(&'static [&'static str], Literal),
}

impl Crm {
    pub(super) fn search(&mut self, context: &Context<'_>) -> Answer {
        if let Err(answer) = self.known_module(context.module()) {
            return answer;
        }
        match self.found(context) {
            Ok((rows, _)) if rows.is_empty() => Answer::empty(204),
            Ok((rows, info)) => Answer::json(200, json!({ "data": rows, "info": info })),
            Err(refusal) => refusal.answer(400),
        }
    }

    fn found(&self, context: &Context<'_>) -> Result<(Vec<Value>, Value), Refusal> {
        let module = self.modules.get(context.module()).ok_or_else(|| Refusal::new("INVALID_MODULE", "invalid module", json!({})))?;
        let criteria = criteria(module, context)?;
        let page = self.page(context)?;
        let (zone, lag) = (context.zone(), context.scenario.search_lag());
        let rows = module.records.iter().filter_map(|(id, record)| {
            let fresh = record.written + lag > context.now;
            let values = if fresh { record.indexed.as_ref()? } else { &record.values };
            Some(Row { module, id, record, values })
        });
        let rows: Vec<Row<'_>> = rows.filter(|row| criteria.fits(&|name| cell(self, row, name), module)).collect();
        let named: Option<Vec<&str>> = context.request.query("fields").map(|fields| fields.split(',').map(str::trim).collect());
        let details: Vec<&str> = module.fields.iter().filter(|field| field.is_detail()).map(Field::name).collect();
        let shown = rows.iter().skip(page.first).take(page.per_page).map(|row| {
            let mut full = self.full(module, row.id, row.record, zone);
            if let Value::Object(full) = &mut full {
                full.retain(|name, _| !details.contains(&name.as_str()));
            }
            named.as_ref().map_or_else(|| full.clone(), |named| pick(&full, named))
        });
        let shown: Vec<Value> = shown.collect();
        let info = json!({
            "per_page": page.per_page, "count": shown.len(), "page": page.first / page.per_page + 1,
            "more_records": page.first + shown.len() < rows.len(),
        });
        Ok((shown, info))
    }
}

/// The first of the parameters that is given.
fn criteria(module: &Module, context: &Context<'_>) -> Result<Criteria, Refusal> {
    let get = |name: &str| context.request.query(name).filter(|text| !text.is_empty());
    if let Some(text) = get("criteria") {
        let mut parser = Parser { rest: text, conditions: 0 };
        let criteria = parser.whole()?;
        return criteria.check(module).map(|()| criteria);
    }
    if let Some(email) = get("email") {
        return Ok(Criteria::Any(&["email"], Literal::new(email)));
    }
    if let Some(phone) = get("phone") {
        return Ok(Criteria::Any(&["phone"], Literal::new(phone)));
    }
    match get("word") {
        Some(word) if word.chars().count() >= 2 => Ok(Criteria::Any(&[], Literal::new(word))),
        Some(_) => Err(Refusal::new("INVALID_DATA", "invalid value", json!({ "param_name": "word" }))),
        None => {
            let details = json!({ "param_names": ["criteria", "email", "phone", "word"] });
            Err(Refusal::new("EXPECTED_PARAM_MISSING", "One of the expected parameter is missing", details))
        }
    }
}

impl Criteria {
    fn check(&self, module: &Module) -> Result<(), Refusal> {
        match self {
            Self::And(left, right) | Self::Or(left, right) => left.check(module).and_then(|()| right.check(module)),
            Self::Is { field, .. } if field != "id" && module.field(field).is_none() => {
                Err(invalid(json!({ "api_name": field, "reason": "the field is not available for search" })))
            }
            Self::Is { operator, field, .. } if !OPERATORS.contains(&operator.as_str()) => {
                Err(invalid(json!({ "api_name": field, "operator": operator })))
            }
            Self::Is { .. } | Self::Any(..) => Ok(()),
        }
    }

    fn fits(&self, value_of: &impl Fn(&str) -> Cell, module: &Module) -> bool {
        match self {
            Self::And(left, right) => left.fits(value_of, module) && right.fits(value_of, module),
            Self::Or(left, right) => left.fits(value_of, module) || right.fits(value_of, module),
            Self::Is { field, operator, values } => {
                let is_text = module.field(field).is_some_and(|field| matches!(field.spec.data_type.as_str(), "text" | "textarea"));
                matches(&value_of(field), operator, values, is_text)
            }
            Self::Any(types, wanted) => module.fields.iter().any(|field| {
                let of_type = types.is_empty() || types.contains(&field.spec.data_type.as_str());
                of_type && contains(&value_of(field.name()), wanted)
            }),
        }
    }
}

const OPERATORS: &[&str] =
    &["equals", "not_equal", "starts_with", "in", "greater_than", "greater_equal", "less_than", "less_equal", "between"];

fn matches(value: &Cell, operator: &str, wanted: &[Literal], is_text: bool) -> bool {
    let is = |at: usize, accepted: fn(Ordering) -> bool| wanted.get(at).and_then(|wanted| value.compare(wanted)).is_some_and(accepted);
    match operator {
        // `equals` behaves like contains on text (CRM fact 2.10).
        "equals" if is_text => wanted.first().is_some_and(|wanted| contains(value, wanted)),
        "equals" => is(0, Ordering::is_eq),
        "not_equal" => is(0, Ordering::is_ne),
        "starts_with" => match (value, wanted.first()) {
            (Cell::Text(text), Some(wanted)) => text.starts_with(wanted.lower()),
            _ => false,
        },
        "in" => (0..wanted.len()).any(|at| is(at, Ordering::is_eq)),
        "greater_than" => is(0, Ordering::is_gt),
        "greater_equal" => is(0, Ordering::is_ge),
        "less_than" => is(0, Ordering::is_lt),
        "less_equal" => is(0, Ordering::is_le),
        _ => is(0, Ordering::is_ge) && is(1, Ordering::is_le),
    }
}

fn contains(value: &Cell, wanted: &Literal) -> bool {
    matches!(value, Cell::Text(text) if text.contains(wanted.lower()))
}

fn invalid(details: Value) -> Refusal {
    Refusal::new("INVALID_QUERY", "invalid query formed", details)
}

/// `((Field:operator:value)and(Field:operator:value))`; a backslash escapes parentheses and commas in a value.
struct Parser<'a> {
    rest: &'a str,
    conditions: usize,
}

impl Parser<'_> {
    fn whole(&mut self) -> Result<Criteria, Refusal> {
        let criteria = self.joined()?;
        if self.rest.trim().is_empty() { Ok(criteria) } else { Err(invalid(json!({ "reason": "invalid criteria" }))) }
    }

    fn joined(&mut self) -> Result<Criteria, Refusal> {
        let mut left = self.group()?;
        loop {
            if self.takes("and") {
                left = Criteria::And(Box::new(left), Box::new(self.group()?));
            } else if self.takes("or") {
                left = Criteria::Or(Box::new(left), Box::new(self.group()?));
            } else {
                return Ok(left);
            }
        }
    }

    fn takes(&mut self, wanted: &str) -> bool {
        self.rest = self.rest.trim_start();
        let taken = self.rest.strip_prefix(wanted);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    fn group(&mut self) -> Result<Criteria, Refusal> {
        if !self.takes("(") {
            return Err(invalid(json!({ "reason": "invalid criteria" })));
        }
        let criteria = if self.rest.trim_start().starts_with('(') { self.joined()? } else { self.condition()? };
        if self.takes(")") { Ok(criteria) } else { Err(invalid(json!({ "reason": "invalid criteria" }))) }
    }

    /// Up to the parenthesis that ends it, which is left.
    fn condition(&mut self) -> Result<Criteria, Refusal> {
        self.conditions += 1;
        if self.conditions > MOST_CONDITIONS {
            return Err(Refusal::new("CRITERIA_LIMIT_EXCEEDED", "the criteria limit is exceeded", json!({ "limit": MOST_CONDITIONS })));
        }
        let mut text = String::new();
        let mut letters = self.rest.char_indices();
        let end = loop {
            match letters.next() {
                Some((at, ')')) => break at,
                Some((_, '\\')) => text.extend(letters.next().map(|(_, letter)| letter)),
                Some((_, letter)) => text.push(letter),
                None => return Err(invalid(json!({ "reason": "invalid criteria" }))),
            }
        };
        self.rest = &self.rest[end..];
        let mut parts = text.splitn(3, ':');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(field), Some(operator), Some(value)) => {
                let (field, operator) = (field.trim().to_owned(), operator.trim().to_owned());
                let values: Vec<Literal> = match operator.as_str() {
                    "in" | "between" => value.split(',').take(MOST_VALUES).map(Literal::new).collect(),
                    _ => vec![Literal::new(value)],
                };
                Ok(Criteria::Is { field, operator, values })
            }
            _ => Err(invalid(json!({ "reason": "invalid criteria" }))),
        }
    }
}
