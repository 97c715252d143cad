//! What this replica may work on: syncs whose published hash equals that of its own file, kinds that it knows, connections for which it holds
//! a token. For the rest it leaves the work to replicas that agree.

use std::collections::BTreeMap;

use sqlx::PgExecutor;

/// A way of calling, as published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) id: i64,
    pub(crate) connection: String,
    pub(crate) kind: String,
    /// The sync and its published hash.
    pub(crate) sync: Option<(String, String)>,
}

/// All published shapes.
pub(crate) async fn load(db: impl PgExecutor<'_>) -> Result<Vec<Shape>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select s.id, s.connection, s.kind, y.name as "sync?", y.hash as "hash?"
           from sluice.shape s left join sluice.sync y on y.name = s.sync where s.sync = '' or y.retired_at is null"#
    )
    .fetch_all(db)
    .await?;
    let shapes = rows.into_iter().map(|r| Shape { id: r.id, connection: r.connection, kind: r.kind, sync: r.sync.zip(r.hash) });
    Ok(shapes.collect())
}

/// The shapes that may be claimed, and the syncs on which this replica's file differs from what is published.
pub(crate) fn agreed(
    shapes: &[Shape],
    hashes: &BTreeMap<String, String>,
    knows: impl Fn(&str) -> bool,
    has_token: impl Fn(&str) -> bool,
) -> (Vec<i64>, Vec<String>) {
    let mut ids = Vec::new();
    let mut differing = Vec::new();
    for shape in shapes {
        let same = match &shape.sync {
            Some((name, published)) => hashes.get(name) == Some(published),
            None => true,
        };
        if let (false, Some((name, _))) = (same, &shape.sync) {
            differing.push(name.clone());
        }
        if same && knows(&shape.kind) && has_token(&shape.connection) {
            ids.push(shape.id);
        }
    }
    ids.sort_unstable();
    differing.sort();
    differing.dedup();
    (ids, differing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_file_agrees_on_is_claimed() {
        let shape = |id, connection: &str, kind: &str, sync: Option<(&str, &str)>| Shape {
            id,
            connection: connection.into(),
            kind: kind.into(),
            sync: sync.map(|(n, h)| (n.into(), h.into())),
        };
        let shapes = [
            shape(1, "main", "push", Some(("customers", "old"))),
            shape(2, "main", "push", Some(("items", "new"))),
            shape(3, "main", "call", None),
            shape(4, "other", "call", None),
            shape(5, "main", "theirs", None),
            shape(6, "main", "push", Some(("unknown", "x"))),
        ];
        let hashes = BTreeMap::from([("customers".into(), "old".into()), ("items".into(), "mine".into())]);
        let (ids, differing) = agreed(&shapes, &hashes, |kind| kind != "theirs", |connection| connection == "main");
        assert_eq!(ids, [1, 3]);
        assert_eq!(differing, ["items", "unknown"]);
    }
}
