//! [`Db`] and [`Tx`] as sqlx executors.
//!
//! sqlx sends a statement in two steps (parse and describe; bind and execute). A transaction pooler may carry them to two server
//! connections unless an explicit transaction holds them together, and a named statement would be unknown on the next one.

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Describe, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr};

use super::{Db, Tx};

type Step = Either<PgQueryResult, PgRow>;

/// A statement that leaves no name behind on the server.
#[derive(Clone)]
struct Unnamed {
    sql: SqlStr,
    arguments: Option<PgArguments>,
}

impl Unnamed {
    fn new<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, Error> {
        let arguments = query.take_arguments().map_err(Error::Encode)?;
        Ok(Self { sql: query.sql(), arguments })
    }
}

impl Execute<'_, Postgres> for Unnamed {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        false
    }
}

/// Runs one statement in a transaction of its own.
async fn alone(pool: &PgPool, statement: Result<Unnamed, Error>) -> Result<Vec<Step>, Error> {
    let statement = statement?;
    let mut connection = pool.acquire().await?;
    let again = statement.clone();
    match between_begin_and_commit(&mut connection, statement).await {
        // Nothing was executed: sqlx met a type that is newer than this connection, and while it asked what that is, the
        // server dropped the unnamed statement. Now the type is known.
        Err(error) if is_lost_statement(&error) => between_begin_and_commit(&mut connection, again).await,
        outcome => outcome,
    }
}

async fn between_begin_and_commit(connection: &mut PgConnection, statement: Unnamed) -> Result<Vec<Step>, Error> {
    let mut tx = connection.begin().await?;
    let steps = (&mut *tx).fetch_many(statement).try_collect().await?;
    tx.commit().await?;
    Ok(steps)
}

fn is_lost_statement(error: &Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "26000")
}

impl<'p> Executor<'p> for &Db {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.unnamed() {
            return self.pool.fetch_many(query);
        }
        let pool = self.pool.clone();
        let statement = Unnamed::new(query);
        let whole = async move {
            let steps = alone(&pool, statement).await?;
            Ok::<_, Error>(stream::iter(steps.into_iter().map(Ok)))
        };
        stream::once(whole).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.unnamed() {
            return self.pool.fetch_optional(query);
        }
        let pool = self.pool.clone();
        let statement = Unnamed::new(query);
        Box::pin(async move {
            let steps = alone(&pool, statement).await?;
            Ok(steps.into_iter().find_map(Either::right))
        })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        self.pool.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        self.pool.describe(sql)
    }
}

impl<'c> Executor<'c> for &'c mut Tx {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.unnamed {
            return (*self.inner).fetch_many(query);
        }
        match Unnamed::new(query) {
            Ok(statement) => (*self.inner).fetch_many(statement),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.unnamed {
            return (*self.inner).fetch_optional(query);
        }
        match Unnamed::new(query) {
            Ok(statement) => (*self.inner).fetch_optional(statement),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        (*self.inner).prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        (*self.inner).describe(sql)
    }
}
