//! COQL's grammar, as far as reads of one module need it.
//!
//! `select A, B.C from Module where … order by A asc, id desc limit 0, 200`. `where` is mandatory; more than two
//! conditions must be in parentheses pairwise (CRM fact 2.11).

use super::super::compare::Literal;

/// Most columns of a select, an `in` list, conditions, and columns of an order.
const MOST_COLUMNS: usize = 50;
const MOST_VALUES: usize = 100;
const MOST_CONDITIONS: usize = 25;
const MOST_ORDERS: usize = 10;

/// A query that can be carried out.
#[derive(Debug, PartialEq)]
pub(super) struct Query {
    pub(super) columns: Vec<String>,
    pub(super) module: String,
    pub(super) filter: Filter,
    /// Columns, and whether they descend.
    pub(super) order: Vec<(String, bool)>,
    pub(super) offset: usize,
    pub(super) limit: Option<usize>,
}

/// The condition of a `where`.
#[derive(Debug, PartialEq)]
pub(super) enum Filter {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Is(String, Test),
}

/// What one column must be.
#[derive(Debug, PartialEq)]
pub(super) enum Test {
    Equal(Literal),
    NotEqual(Literal),
    Greater(Literal),
    GreaterEqual(Literal),
    Less(Literal),
    LessEqual(Literal),
    In(Vec<Literal>),
    NotIn(Vec<Literal>),
    Like(String),
    NotLike(String),
    Between(Literal, Literal),
    Null,
    NotNull,
}

/// Why a query was refused: the clause that does not parse, or a limit.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    Syntax(&'static str),
    Limit(&'static str, usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// A name, keyword, number or boolean.
    Word(String),
    Text(String),
    Mark(&'static str),
}

/// Reads a query.
pub(super) fn parse(text: &str) -> Result<Query, Fault> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, conditions: 0 };
    parser.keyword("select", "select")?;
    let columns = parser.list(|parser| parser.word("select"))?;
    if columns.len() > MOST_COLUMNS {
        return Err(Fault::Limit("select", MOST_COLUMNS));
    }
    parser.keyword("from", "from")?;
    let module = parser.word("from")?;
    parser.keyword("where", "where")?;
    let filter = parser.group()?;
    let order = match parser.takes("order") {
        false => Vec::new(),
        true => {
            parser.keyword("by", "order by")?;
            parser.list(|parser| {
                let column = parser.word("order by")?;
                let descending = parser.takes("desc");
                if !descending {
                    parser.takes("asc");
                }
                Ok((column, descending))
            })?
        }
    };
    if order.len() > MOST_ORDERS {
        return Err(Fault::Limit("order by", MOST_ORDERS));
    }
    let (offset, limit) = parser.limit()?;
    match parser.tokens.get(parser.at) {
        None => Ok(Query { columns, module, filter, order, offset, limit }),
        Some(_) => Err(Fault::Syntax("where")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    conditions: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    /// Takes the next token if it is this keyword or mark.
    fn takes(&mut self, wanted: &str) -> bool {
        let taken = match self.tokens.get(self.at) {
            Some(Token::Word(word)) => word.eq_ignore_ascii_case(wanted),
            Some(Token::Mark(mark)) => *mark == wanted,
            _ => false,
        };
        self.at += usize::from(taken);
        taken
    }

    fn keyword(&mut self, wanted: &str, clause: &'static str) -> Result<(), Fault> {
        if self.takes(wanted) { Ok(()) } else { Err(Fault::Syntax(clause)) }
    }

    fn word(&mut self, clause: &'static str) -> Result<String, Fault> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            _ => Err(Fault::Syntax(clause)),
        }
    }

    fn literal(&mut self) -> Result<Literal, Fault> {
        self.text().map(Literal::new)
    }

    fn text(&mut self) -> Result<String, Fault> {
        match self.next() {
            Some(Token::Word(text) | Token::Text(text)) => Ok(text),
            _ => Err(Fault::Syntax("where")),
        }
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let mut list = vec![one(self)?];
        while self.takes(",") {
            list.push(one(self)?);
        }
        Ok(list)
    }

    /// One operand, or two with `and` or `or` between; a third needs parentheses.
    fn group(&mut self) -> Result<Filter, Fault> {
        let left = self.operand()?;
        let joined = match (self.takes("and"), self.takes("or")) {
            (true, _) => Filter::And(Box::new(left), Box::new(self.operand()?)),
            (_, true) => Filter::Or(Box::new(left), Box::new(self.operand()?)),
            _ => return Ok(left),
        };
        if self.takes("and") || self.takes("or") { Err(Fault::Syntax("where")) } else { Ok(joined) }
    }

    fn operand(&mut self) -> Result<Filter, Fault> {
        if !self.takes("(") {
            return self.condition();
        }
        let group = self.group()?;
        self.keyword(")", "where")?;
        Ok(group)
    }

    fn condition(&mut self) -> Result<Filter, Fault> {
        self.conditions += 1;
        if self.conditions > MOST_CONDITIONS {
            return Err(Fault::Limit("where", MOST_CONDITIONS));
        }
        let column = self.word("where")?;
        let test = self.test()?;
        Ok(Filter::Is(column, test))
    }

    fn test(&mut self) -> Result<Test, Fault> {
        if self.takes("is") {
            let not = self.takes("not");
            self.keyword("null", "where")?;
            return Ok(if not { Test::NotNull } else { Test::Null });
        }
        if self.takes("between") {
            let low = self.literal()?;
            self.keyword("and", "where")?;
            return Ok(Test::Between(low, self.literal()?));
        }
        let not = self.takes("not");
        if self.takes("in") {
            self.keyword("(", "where")?;
            let values = self.list(Self::literal)?;
            self.keyword(")", "where")?;
            if values.len() > MOST_VALUES {
                return Err(Fault::Limit("in", MOST_VALUES));
            }
            return Ok(if not { Test::NotIn(values) } else { Test::In(values) });
        }
        if self.takes("like") {
            let pattern = self.text()?;
            return Ok(if not { Test::NotLike(pattern) } else { Test::Like(pattern) });
        }
        match self.next() {
            Some(Token::Mark("=")) if !not => Ok(Test::Equal(self.literal()?)),
            Some(Token::Mark("!=")) if !not => Ok(Test::NotEqual(self.literal()?)),
            Some(Token::Mark(">")) if !not => Ok(Test::Greater(self.literal()?)),
            Some(Token::Mark(">=")) if !not => Ok(Test::GreaterEqual(self.literal()?)),
            Some(Token::Mark("<")) if !not => Ok(Test::Less(self.literal()?)),
            Some(Token::Mark("<=")) if !not => Ok(Test::LessEqual(self.literal()?)),
            _ => Err(Fault::Syntax("where")),
        }
    }

    /// `limit N`, `limit OFFSET, N` or `limit N offset OFFSET`.
    fn limit(&mut self) -> Result<(usize, Option<usize>), Fault> {
        if !self.takes("limit") {
            return Ok((0, None));
        }
        let first = self.number()?;
        if self.takes(",") {
            return Ok((first, Some(self.number()?)));
        }
        let offset = if self.takes("offset") { self.number()? } else { 0 };
        Ok((offset, Some(first)))
    }

    fn number(&mut self) -> Result<usize, Fault> {
        self.word("limit")?.parse().map_err(|_| Fault::Syntax("limit"))
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    const MARKS: [&str; 9] = ["!=", ">=", "<=", "=", ">", "<", "(", ")", ","];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) {
            tokens.push(Token::Mark(mark));
            rest = &rest[mark.len()..];
        } else if first == '\'' {
            let (text, length) = quoted(&rest[1..]).ok_or(Fault::Syntax("where"))?;
            tokens.push(Token::Text(text));
            rest = &rest[1 + length..];
        } else {
            let is_word = |letter: char| letter.is_alphanumeric() || "_.$-:+".contains(letter);
            let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            if end == 0 {
                return Err(Fault::Syntax("select"));
            }
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}

/// The text up to the closing quote, and how many bytes it and the quote take. A backslash escapes.
fn quoted(rest: &str) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut letters = rest.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' => return Some((text, at + 1)),
            '\\' => text.push(letters.next()?.1),
            _ => text.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Fault, Filter, Literal, Test, parse};

    #[test]
    fn the_idiom_of_an_incremental_read_is_understood() {
        let query = parse(
            "select Deal_Name, Account_Name.Account_Name, Modified_Time from Deals where Modified_Time >= '2026-01-01T00:00:00+02:00' \
             order by Modified_Time asc, id limit 200",
        )
        .expect("a query");
        assert_eq!((query.columns.len(), query.module.as_str(), query.limit, query.offset), (3, "Deals", Some(200), 0));
        assert_eq!(query.order, [("Modified_Time".to_owned(), false), ("id".to_owned(), false)]);
        assert_eq!(query.filter, Filter::Is("Modified_Time".into(), Test::GreaterEqual(Literal::new("2026-01-01T00:00:00+02:00"))));
        let paged = parse("select id from Deals where id is not null limit 400, 100").expect("a query");
        assert_eq!((paged.offset, paged.limit), (400, Some(100)));
    }

    #[test]
    fn a_third_condition_needs_parentheses() {
        let asked = |condition: &str| parse(&format!("select id from Deals where {condition}"));
        assert!(asked("A = 1 and B = 'it\\'s' ").is_ok());
        assert_eq!(asked("A = 1 and B = 2 and C = 3"), Err(Fault::Syntax("where")));
        assert!(asked("((A = 1 and B = 2) and (C in ('x', 'y') or D not like '%z%'))").is_ok());
        assert!(asked("(A > 1 and (A = 1 or id > '5'))").is_ok());
    }

    #[test]
    fn what_is_no_query_says_which_clause() {
        assert_eq!(parse("delete from Deals"), Err(Fault::Syntax("select")));
        assert_eq!(parse("select id from Deals"), Err(Fault::Syntax("where")));
        assert_eq!(parse("select id from Deals where id = 'open"), Err(Fault::Syntax("where")));
        assert_eq!(parse("select id from Deals where id = 1 limit x"), Err(Fault::Syntax("limit")));
        let many = vec!["1"; 101].join(",");
        assert_eq!(parse(&format!("select id from Deals where id in ({many})")), Err(Fault::Limit("in", 100)));
    }
}
